"""The page in a real browser: what a visitor does, in light, in dark, and on a phone."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from demo import asking
from demo.server import Address, launch
from demo.visit import Visit
from demo.workbench import Workbench
from llara_app import locations
from llara_app.locks import alone
from llara_app.models.manifest import LOG_FILE, MANIFEST_FILE
from llara_app.training_runs import training_lock
from tests.demo.conftest import PATIENCE
from tests.small_world import NUM_ITEMS, World

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

Open = Callable[..., "Page"]


@pytest.fixture
def open_page(chromium: Browser, url: str) -> Iterator[Open]:
    """Opens pages, each of a visitor of its own, and watches that they stay with the server and out of trouble."""
    contexts = []
    trouble: list[str] = []

    def opened(address: str = url, *, width: int = 1280, scheme: Any = "light") -> Page:
        context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        contexts.append(context)
        context.set_default_timeout(PATIENCE)
        page = context.new_page()
        page.on("pageerror", lambda error: trouble.append(f"error in the page: {error}"))
        page.on("dialog", lambda dialog: (trouble.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.on(
            "request",
            lambda request: (
                None
                if request.url.startswith((address, "data:", "blob:"))
                else trouble.append(f"asked elsewhere: {request.url}")
            ),
        )
        page.goto(address)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert trouble == []


def expect_text(page: Page, selector: str, text: str | re.Pattern[str], patience: int = PATIENCE) -> None:
    from playwright.sync_api import expect

    expect(page.locator(selector).first).to_contain_text(text, timeout=patience)


def predicted(page: Page) -> None:
    """Wait until predictions and their explanation are there."""
    page.wait_for_selector("#predictions .bars li")
    page.wait_for_selector("#why .bars li")


def choose_user(page: Page, user: str) -> None:
    page.get_by_label("User", exact=True).fill(user)
    page.locator(f'#users [data-key="{user}"]').click()
    page.wait_for_selector(f'#users [data-key="{user}"][aria-pressed="true"]')


def choose(page: Page, field: str, name: str) -> None:
    """Choose from a list with the pointer."""
    page.locator(f"#{field} input").click()
    page.get_by_role("option", name=name, exact=True).click()


@contextlib.contextmanager
def another_bundle(name: str, dataset: str = "small") -> Iterator[Path]:
    """A bundle that is there for a while."""
    folder = locations.bundles() / name
    shutil.copytree(locations.bundles() / "second", folder)
    manifest = json.loads((folder / MANIFEST_FILE).read_text())
    manifest["dataset"]["name"] = dataset
    (folder / MANIFEST_FILE).write_text(json.dumps(manifest))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def explain_second(page: Page) -> None:
    """Ask why the second prediction is there, again if newer predictions have come in between."""
    second = page.locator("#predictions .bars li button").nth(1)
    for _ in range(PATIENCE // 3000):
        second.click()
        with contextlib.suppress(AssertionError):
            expect_text(page, "#why .about strong", second.inner_text(), patience=3000)
            return
    pytest.fail("the explanation never followed the prediction that was clicked")


def history(page: Page) -> list[str]:
    """Titles of the history, newest first."""
    return page.locator("#history ol .name").all_inner_texts()


def test_a_visitor_looks_around(open_page: Open) -> None:
    page = open_page()
    predicted(page)
    choose_user(page, "u007")
    expect_text(page, "#predictions", "actually chosen next")
    expect_text(page, "#prompt", "◆")

    page.get_by_label("Titles", exact=True).first.check()
    expect_text(page, "#prompt .aside", re.compile("^text"))
    assert page.locator("#prompt .token").count() == 0

    before = history(page)
    page.get_by_label("Add a title").fill("film 39")
    page.locator('#titles [data-key="i39"]').click()
    page.wait_for_function("n => document.querySelectorAll('#history ol .name').length === n", arg=len(before) + 1)
    assert history(page) == ["Film 39 (1999)", *before]
    # The prompt follows the history; the removed item no longer stands in it.
    expect_text(page, "#prompt .item.history >> nth=-1", "Film 39 (1999)")
    page.locator('#history [data-action="remove"]').first.click()
    page.wait_for_function("n => document.querySelectorAll('#history ol .name').length === n", arg=len(before))
    assert history(page) == before
    page.get_by_role("button", name="Undo the last change").click()
    page.wait_for_function("n => document.querySelectorAll('#history ol .name').length === n", arg=len(before) + 1)

    explain_second(page)


def test_the_keyboard_alone_is_enough_to_edit(open_page: Open) -> None:
    page = open_page()
    predicted(page)
    choose_user(page, "u009")
    before = history(page)
    page.locator('#history [data-action="older"]').first.focus()
    page.keyboard.press("Enter")
    swapped = [before[1], before[0], *before[2:]]
    page.wait_for_function("t => document.querySelector('#history ol .name').innerText === t", arg=swapped[0])
    assert history(page) == swapped
    # The focus stays with the item that was moved, so that it can be moved on.
    focused = page.evaluate("[document.activeElement.dataset.action, document.activeElement.dataset.key]")
    assert focused == ["older", str(len(before) - 2)]


def test_titles_that_try_to_be_markup_stay_text(open_page: Open) -> None:
    page = open_page()
    predicted(page)
    for word in ("img", "script", "Bold", "document"):
        page.get_by_label("Add a title").fill(word)
        # Not the results of the word before.
        expect_text(page, "#titles", word)
        page.locator("#titles [data-action=add]").first.click()
        page.wait_for_function("w => document.querySelector('#history ol .name').innerText.includes(w)", arg=word)
    expect_text(page, "#prompt", "<script>document.title='owned'</script>")
    page.locator("#users").get_by_role("button").first.wait_for()
    page.get_by_label("User", exact=True).fill("<img src=x onerror=alert(1)>")
    expect_text(page, "#users", "No user's id or history matches")
    assert page.title() == "LLaRA: an item is a token"
    assert page.locator("#history img, #prompt img, #prompt script, #why b, #predictions img").count() == 0


def test_a_reload_finds_the_visit_again_and_others_never_see_it(open_page: Open) -> None:
    page = open_page()
    predicted(page)
    choose_user(page, "u011")
    page.locator('#history [data-action="remove"]').first.click()
    page.get_by_label("Behaviour tokens", exact=True).first.check()
    expect_text(page, "#prompt .aside", re.compile("^behaviour"))
    mine = history(page)
    page.reload()
    expect_text(page, "#prompt .aside", re.compile("^behaviour"))
    assert history(page) == mine
    assert page.locator('#users [data-key="u011"]').get_attribute("aria-pressed") in ("true", None)

    other = open_page()
    predicted(other)
    assert history(other) != mine
    expect_text(other, "#prompt .aside", re.compile("^hybrid"))


def test_an_emptied_history_says_what_to_do(open_page: Open) -> None:
    page = open_page()
    predicted(page)
    page.get_by_role("button", name="Remove all items").click()
    expect_text(page, "#history", "This history is empty")
    expect_text(page, "#predictions", "Add at least one item")


def test_compare_and_map(open_page: Open) -> None:
    page = open_page()
    predicted(page)
    page.get_by_role("tab", name="Compare").click()
    page.get_by_label("second", exact=True).check()
    page.get_by_role("button", name="Compare", exact=True).click()
    expect_text(page, "#compare-table", "hybrid · second")
    assert page.locator("#compare-result .variant").count() == 7
    page.get_by_role("tab", name="Map").click()
    assert drawn_items(page) == NUM_ITEMS
    page.get_by_label("The LLM’s input space").check()
    page.wait_for_function("text => document.querySelector('#map').innerText !== text", arg=page.inner_text("#map"))
    assert drawn_items(page) == NUM_ITEMS


def drawn_items(page: Page) -> int:
    """How many items the map shows, once it has been drawn."""
    page.wait_for_function("document.querySelector('#map canvas')?.dataset.drawn !== undefined")
    page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    return int(page.locator("#map canvas").first.get_attribute("data-drawn") or 0)


def test_the_map_by_pointer_and_by_keys(open_page: Open) -> None:
    page = open_page()
    predicted(page)
    choose_user(page, "u007")
    expect_text(page, "#predictions", "actually chosen next")
    page.get_by_role("tab", name="Map").click()
    assert drawn_items(page) == NUM_ITEMS
    tip, canvas = page.locator("#map .tip"), page.locator("#map canvas").first

    # The marks have names, which show where they are.
    last = page.locator("#map .marked section").first.locator("li button").last
    last.focus()
    expect_text(page, "#map .tip.shown", last.inner_text())
    # A pointer over that place says the same.
    at = middle_of(page.locator("#map .ring"))
    page.mouse.move(0, 0)
    last.blur()
    assert not tip.is_visible()
    page.mouse.move(*at)
    expect_text(page, "#map .tip.shown", last.inner_text())
    expect_text(page, "#map .tip.shown", "oldest first")

    # A wheel over a map that nobody has taken hold of belongs to the page.
    page.mouse.wheel(0, -240)
    assert drawn_items(page) == NUM_ITEMS
    canvas.focus()
    for _ in range(6):
        page.keyboard.press("+")
    closer = drawn_items(page)
    assert 0 < closer < NUM_ITEMS
    page.keyboard.press("0")
    assert drawn_items(page) == NUM_ITEMS
    page.mouse.move(*middle_of(canvas))
    page.mouse.wheel(0, -1200)
    page.wait_for_function("n => Number(document.querySelector('#map canvas').dataset.drawn) < n", arg=NUM_ITEMS)
    page.get_by_role("button", name="Show all items").click()
    assert drawn_items(page) == NUM_ITEMS

    # Dragged, all moves along: the place under the pointer goes with it.
    for _ in range(3):
        page.get_by_role("button", name="Zoom in").click()
    last.hover()
    before = page.locator("#map .ring").bounding_box()
    middle = middle_of(canvas)
    page.mouse.move(*middle)
    page.mouse.down()
    page.mouse.move(middle[0] + 12, middle[1])
    page.mouse.up()
    last.hover()
    after = page.locator("#map .ring").bounding_box()
    assert before is not None and after is not None
    assert abs(after["x"] - before["x"]) == pytest.approx(12, abs=1.5)

    page.get_by_role("button", name="Show all items").click()
    group = page.locator("#map .groups button").first
    group.click()
    assert group.get_attribute("aria-pressed") == "false"
    assert 0 < drawn_items(page) < NUM_ITEMS


def middle_of(place: Locator) -> tuple[float, float]:
    box = place.bounding_box()
    assert box is not None
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def test_titles_on_the_map_stay_text_in_the_dark_and_on_a_phone(open_page: Open) -> None:
    page = open_page(width=390, scheme="dark")
    predicted(page)
    for word in ("script", "img"):
        page.get_by_label("Add a title").fill(word)
        expect_text(page, "#titles", word)
        page.locator("#titles [data-action=add]").first.click()
        page.wait_for_function("w => document.querySelector('#history ol .name').innerText.includes(w)", arg=word)
    expect_text(page, "#prompt", "<script>document.title='owned'</script>")
    open_tab(page, "Map")
    assert drawn_items(page) == NUM_ITEMS
    page.locator("#map .marked li button", has_text="<script>").first.focus()
    expect_text(page, "#map .tip.shown", "<script>document.title='owned'</script>")
    assert page.title() == "LLaRA: an item is a token"
    assert page.locator("#map img, #map script").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    dark = page.evaluate(CORNER)
    page.locator("[data-colours]").click()
    page.wait_for_function(f"({CORNER})() !== {dark}")


def open_tab(page: Page, name: str) -> None:
    """Click on a tab, which a narrow screen keeps in a menu."""
    tab = page.get_by_role("tab", name=name)
    if tab.is_visible():
        tab.click()
    else:
        page.locator(".overflow-menu > button").click()
        page.locator(".overflow-dropdown button", has_text=name).click()


CORNER = """() => document.querySelector('#map canvas').getContext('2d').getImageData(1, 1, 1, 1).data[0]"""
"""The red of the map's ground."""


def test_a_model_that_fails_to_load_is_told_and_nothing_old_stays_beside_it(open_page: Open, demo_home: Path) -> None:
    from playwright.sync_api import expect

    with another_bundle("broken") as broken:
        shutil.rmtree(broken / "encoder")
        page = open_page()
        predicted(page)
        open_tab(page, "Map")
        assert drawn_items(page) == NUM_ITEMS
        open_tab(page, "Explore")
        choose(page, "bundle", "broken")
        expect_text(page, "#predictions .empty", "This bundle is incomplete")
        expect(page.locator("#why .bars, #prompt .prompt")).to_have_count(0, timeout=PATIENCE)
        assert page.locator("#predictions .bars, .error").count() == 0
        assert page.locator(".toast-body").count() == 1
        expect_text(page, ".toast-body", "This bundle is incomplete")
        # It would count how often it was told.
        assert "(2)" not in page.locator(".toast-body").inner_text()
        open_tab(page, "Map")
        expect(page.locator("#map canvas").first).not_to_be_visible(timeout=PATIENCE)
        open_tab(page, "Compare")
        expect(page.get_by_label("broken", exact=True)).to_be_checked(timeout=PATIENCE)
        page.get_by_role("button", name="Compare", exact=True).click()
        expect_text(page, "#compare-table .empty", "This bundle is incomplete")
        assert str(demo_home) not in page.content()
        assert "Traceback" not in page.content()
        open_tab(page, "Explore")
        choose(page, "bundle", "second")
        predicted(page)
        expect_text(page, "#predictions .aside", "candidates")
        open_tab(page, "Map")
        assert drawn_items(page) == NUM_ITEMS


def test_a_choice_that_fails_is_told_and_taken_back(open_page: Open, world: World) -> None:
    from playwright.sync_api import expect

    world.store.new_user("small", "u-gone", ["i1", "i2"])
    with another_bundle("gone") as folder, another_bundle("lost", "songs") as other:
        page = open_page()
        predicted(page)
        before = history(page)
        world.store.remove_user("small", "u-gone")
        page.locator('#users [data-key="u-gone"]').click()
        expect_text(page, ".toast-wrap", "No user named 'u-gone'")
        shutil.rmtree(folder)
        choose(page, "bundle", "gone")
        expect_text(page, ".toast-wrap", "No bundle named 'gone'")
        expect(page.locator("#bundle input")).to_have_value("first", timeout=PATIENCE)
        assert page.locator(".toast-wrap").inner_text().count("No bundle named 'gone'") == 1
        shutil.rmtree(other)
        choose(page, "dataset", "songs")
        expect_text(page, ".toast-wrap", "No dataset named 'songs'")
        expect(page.locator("#dataset input")).to_have_value("small", timeout=PATIENCE)
        assert history(page) == before


def test_a_run_that_is_gone_is_told(open_page: Open) -> None:
    from playwright.sync_api import expect

    with another_bundle("gone") as folder:
        page = open_page()
        page.get_by_role("tab", name="Training").click()
        choose(page, "run", "first")
        expect_text(page, "#run-facts", "first")
        shutil.rmtree(folder)
        choose(page, "run", "gone")
        expect_text(page, ".toast-wrap", "No run named 'gone'")
        expect(page.locator("#run input")).to_have_value("first", timeout=PATIENCE)


def test_what_was_found_in_one_dataset_is_not_offered_in_another(open_page: Open) -> None:
    from playwright.sync_api import expect

    with another_bundle("other", "songs"):
        page = open_page()
        predicted(page)
        user, title = page.get_by_label("User", exact=True), page.get_by_label("Add a title")
        for field, name in (("dataset", "songs"), ("dataset", "small"), ("bundle", "second")):
            user.fill("u00")
            title.fill("film 39")
            page.locator('#titles [data-key="i39"]').wait_for()
            choose(page, field, name)
            expect(title).to_have_value("", timeout=PATIENCE)
            expect(user).to_have_value("", timeout=PATIENCE)
            expect(page.locator("#titles button")).to_have_count(0, timeout=PATIENCE)
        page.locator('#users [data-key="u010"]').wait_for()
        # A list that is only opened and left changes nothing.
        title.fill("film 39")
        page.locator('#titles [data-key="i39"]').wait_for()
        page.locator("#dataset input").click()
        title.click()
        page.wait_for_timeout(500)
        assert page.locator("#bundle input").input_value() == "second"
        assert title.input_value() == "film 39"


def test_a_comparison_goes_with_its_history(open_page: Open) -> None:
    from playwright.sync_api import expect

    page = open_page()
    predicted(page)
    choose_user(page, "u007")
    page.get_by_role("tab", name="Compare").click()
    expect_text(page, "#compare-about", "The history of user u007")
    page.get_by_role("button", name="Compare", exact=True).click()
    expect_text(page, "#compare-table", "encoder alone")
    page.get_by_role("tab", name="Explore").click()
    page.get_by_label("Titles", exact=True).first.check()
    expect_text(page, "#prompt .aside", re.compile("^text"))
    page.get_by_role("tab", name="Compare").click()
    page.wait_for_timeout(500)
    assert page.locator("#compare-result .variant").count() == 4
    page.get_by_role("tab", name="Explore").click()
    choose_user(page, "u009")
    page.get_by_role("tab", name="Compare").click()
    expect_text(page, "#compare-about", "The history of user u009")
    expect(page.locator("#compare-table table, #compare-result .variant")).to_have_count(0, timeout=PATIENCE)


class HeldBack:
    """Does what a function does once a test lets it."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._entered, self._go_on = threading.Event(), threading.Event()

    def __call__(self, *arguments: Any) -> Any:
        self._entered.set()
        assert self._go_on.wait(PATIENCE / 1000)
        return self._function(*arguments)

    def wait_until_called(self) -> None:
        assert self._entered.wait(PATIENCE / 1000)

    def let_go(self) -> None:
        self._go_on.set()


def test_a_comparison_that_comes_late_says_whose_it_is(open_page: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    comparing = HeldBack(asking.compare)
    monkeypatch.setattr("demo.compare.compare", comparing)
    page = open_page()
    predicted(page)
    choose_user(page, "u007")
    page.get_by_role("tab", name="Compare").click()
    expect_text(page, "#compare-about", "The history of user u007")
    page.get_by_role("button", name="Compare", exact=True).click()
    comparing.wait_until_called()
    page.get_by_role("tab", name="Explore").click()
    choose_user(page, "u009")
    page.get_by_role("tab", name="Compare").click()
    expect_text(page, "#compare-about", "The history of user u009")
    comparing.let_go()
    expect_text(page, "#compare-table", "encoder alone")
    expect_text(page, "#compare-about", "The history of user u007")


def test_of_choices_in_quick_succession_the_last_is_predicted(
    open_page: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    recommending = HeldBack(asking.recommend)
    page = open_page()
    predicted(page)
    monkeypatch.setattr("demo.asking.recommend", recommending)
    page.get_by_label("Titles", exact=True).first.check()
    recommending.wait_until_called()
    page.get_by_label("Numbers", exact=True).first.check()
    page.wait_for_timeout(500)
    recommending.let_go()
    expect_text(page, "#prompt .aside", re.compile("^index"))
    predicted(page)


def test_candidates_are_chosen_with_keys_too_and_each_number_is_ranked_once(
    open_page: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    from playwright.sync_api import expect

    ranked: list[int] = []
    real = asking.recommend

    def counted(workbench: Workbench, visit: Visit) -> asking.Answer:
        ranked.append(visit.num_candidates)
        return real(workbench, visit)

    monkeypatch.setattr("demo.asking.recommend", counted)
    page = open_page()
    predicted(page)
    page.locator("#candidates input[type=range]").press("ArrowRight")
    expect_text(page, "#predictions .aside", "· 25 candidates")
    number = page.locator("#candidates input[type=number]")
    number.fill("")
    number.press_sequentially("12", delay=100)
    expect_text(page, "#predictions .aside", "· 12 candidates")
    number.fill("500")
    expect(number).to_have_value("100", timeout=PATIENCE)
    expect(page.locator("#predictions .aside")).not_to_contain_text("· 12 candidates", timeout=PATIENCE)
    number.fill("1")
    number.press("Tab")
    expect(number).to_have_value("5", timeout=PATIENCE)
    expect_text(page, "#predictions .aside", "· 5 candidates")
    page.reload()
    predicted(page)
    expect(number).to_have_value("5", timeout=PATIENCE)
    page.wait_for_timeout(500)
    assert ranked == [20, 25, 12, 100, 5, 5]
    assert page.locator(".toast-body").count() == 0


def test_training_is_followed_live_and_found_again_after_a_reload(open_page: Open) -> None:
    run = locations.bundles() / "live.training"
    run.mkdir()
    (run / "run.json").write_text("{}")
    # Whoever trains there holds this lock.
    going_on = alone(training_lock(locations.bundles() / "live"))
    step = json.loads((locations.bundles() / "first" / LOG_FILE).read_text().splitlines()[0])

    def log(number: int) -> None:
        with (run / LOG_FILE).open("a") as stream:
            stream.write(json.dumps({**step, "step": number, "total_steps": 50}) + "\n")

    try:
        log(0)
        with going_on:
            page = open_page()
            page.get_by_role("tab", name="Training").click()
            expect_text(page, "#run-facts", "step 1 of 50")
            expect_text(page, "#run-facts", "● running")
            log(1)
            expect_text(page, "#run-facts", "step 2 of 50")
            page.wait_for_selector("#run-curves .js-plotly-plot")
            page.reload()
            page.get_by_role("tab", name="Training").click()
            expect_text(page, "#run-facts", "step 2 of 50")
            log(2)
            expect_text(page, "#run-facts", "step 3 of 50")
    finally:
        shutil.rmtree(run)


def test_evaluation_and_api_can_be_read(open_page: Open) -> None:
    page = open_page()
    names = ["Explore", "Compare", "Map", "Training", "Evaluation", "API"]
    for name in names:
        page.get_by_role("tab", name=name).click()
        assert page.get_by_role("tab").all_inner_texts() == names
    page.get_by_role("tab", name="Evaluation").click()
    expect_text(page, "#paper", "LLaRA (SASRec)")
    page.wait_for_selector("#intervals .js-plotly-plot")
    page.get_by_role("tab", name="API").click()
    expect_text(page, "#api-help", "/recommend")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_light_and_dark_wide_and_narrow(open_page: Open, scheme: str, width: int) -> None:
    page = open_page(width=width, scheme=scheme)
    predicted(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("document.body.classList.contains('dark')") is (scheme == "dark")
    for selector in (
        ".masthead h1",
        "#history .name",
        "#predictions .name",
        "#prompt .item.candidate",
        "#prompt .token",
    ):
        ratio = page.evaluate(CONTRAST, selector)
        assert ratio >= 4.5, f"{selector}: contrast {ratio:.2f}"
    unlabelled = page.evaluate(
        """() => [...document.querySelectorAll('#users button, #history button, input, textarea')]
            .filter(e => e.offsetParent && !(e.innerText || e.ariaLabel || e.labels?.length
                || e.closest('label') || e.getAttribute('aria-labelledby')))
            .map(e => e.outerHTML)"""
    )
    assert unlabelled == []
    page.locator("[data-colours]").click()
    assert page.evaluate("document.body.classList.contains('dark')") is (scheme == "light")


@pytest.fixture
def bare_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, demo_home: Path) -> Iterator[str]:
    """A page without data and without a bundle. Ask for it before `open_page`: its server outlives its pages."""
    monkeypatch.setenv("LLARA_HOME", str(tmp_path))
    served = launch(Workbench(tmp_path / "llara.db"), Address())
    yield str(served.local_url)
    served.close(verbose=False)


def test_without_a_model_the_page_says_what_to_do(bare_url: str, open_page: Open) -> None:
    page = open_page(bare_url)
    expect_text(page, "#no-bundle", "llara-app quickstart")
    for tab in ("Compare", "Map", "Training", "Evaluation"):
        page.get_by_role("tab", name=tab).click()
    expect_text(page, "#paper", "GPT-4")


# The ratio of WCAG 2 between an element's text and the nearest ground that is painted behind it.
CONTRAST = """selector => {
    const rgb = text => text.match(/[\\d.]+/g).map(Number);
    const linear = c => (c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
    const light = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
    const element = document.querySelector(selector);
    let ground = element;
    while (ground && (rgb(getComputedStyle(ground).backgroundColor)[3] ?? 1) === 0) ground = ground.parentElement;
    const [a, b] = [getComputedStyle(element).color, getComputedStyle(ground ?? document.body).backgroundColor]
        .map(text => light(rgb(text))).sort((x, y) => y - x);
    return (a + 0.05) / (b + 0.05);
}"""
