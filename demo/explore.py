"""Explore: a history on the left, what the model makes of it on the right, the prompt below."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gradio as gr

from demo import asking, markup
from demo.examples import Example, examples_of
from demo.failures import in_place, on_page
from demo.visit import DEFAULT_CANDIDATES, Visit
from demo.workbench import Workbench
from llara_app.errors import LlaraError, NotFoundError
from llara_app.prompts import PromptMode

MODEL: dict[str, Any] = {"concurrency_id": "model", "concurrency_limit": 1}
"""Everything that asks a model stands in one queue: a model does one thing at a time."""

QUICK: dict[str, Any] = {"concurrency_limit": None, "show_progress": "hidden", "api_visibility": "private"}
"""For handlers that only look something up. They pass through the queue, where none of them waits for another: the
page shows no error of an event that does not."""

FEWEST_CANDIDATES, MOST_CANDIDATES = 5, 100

Question = tuple[Visit, str]
"""What results on the page are of: a visit, and when the model that goes by that name was trained."""

MODES = [
    ("Title + behaviour token", "hybrid"),
    ("Titles", "text"),
    ("Behaviour tokens", "behaviour"),
    ("Numbers", "index"),
]

ACTIONS = Path(__file__).with_name("actions.js").read_text(encoding="utf-8")


@dataclass(frozen=True)
class Explore:
    """The tab's parts that others refer to."""

    tab: gr.Tab
    visit: gr.State


def html(elem_id: str, value: str = "") -> gr.HTML:
    """A place for our own markup, whose buttons raise an ``act`` event."""
    return gr.HTML(value, elem_id=elem_id, elem_classes=["llara"], js_on_load=ACTIONS, apply_default_css=False)


def bundle_choices(workbench: Workbench, dataset: str) -> list[str]:
    return [choice.name for choice in workbench.bundles() if choice.dataset == dataset]


def dataset_choices(workbench: Workbench) -> list[str]:
    return list(dict.fromkeys(choice.dataset for choice in workbench.bundles()))


def first_visit(workbench: Workbench, bundle: str = "") -> Visit:
    """What a new visitor sees: the first example of a bundle; an empty visit where there is no bundle."""
    if not workbench.bundles():
        return Visit()
    choice = workbench.bundle(bundle)
    visit = Visit(bundle=choice.name, mode=choice.manifest.mode)
    examples = examples_of(workbench, choice.name)
    return open_example(workbench, visit, examples[0]) if examples else visit


def open_example(workbench: Workbench, visit: Visit, example: Example) -> Visit:
    if example.user:
        return open_user(workbench, visit, example.user)
    return visit.opened("", example.history, example.next_item)


def open_user(workbench: Workbench, visit: Visit, user: str) -> Visit:
    found = workbench.user_history(user, visit.bundle)
    next_item = found.next_item.item_id if found.next_item else ""
    return visit.opened(user, tuple(item.item_id for item in found.items), next_item)


def remembered_visit(workbench: Workbench, kept: object) -> Visit:
    """The visit that a browser remembers, or a first one where it no longer fits what is here."""
    if isinstance(kept, dict) and kept.get("bundle"):
        try:
            visit = Visit(
                bundle=workbench.bundle(str(kept["bundle"])).name,
                mode=PromptMode(kept["mode"]),
                num_candidates=int(kept["num_candidates"]),
                user=str(kept["user"]),
                history=tuple(str(item_id) for item_id in kept["history"]),
                next_item=str(kept["next_item"]),
            )
            workbench.items([*visit.history, *([visit.next_item] if visit.next_item else [])], visit.bundle)
            return visit
        except (LlaraError, KeyError, TypeError, ValueError):
            # It was kept by an older page, or the bundle was trained anew: begin afresh.
            return first_visit(workbench)
    return first_visit(workbench)


def question_of(workbench: Workbench, visit: Visit) -> Question:
    return replace(visit, past=()), workbench.bundle(visit.bundle).manifest.created


def history_markup(workbench: Workbench, visit: Visit) -> str:
    choice = workbench.bundle(visit.bundle)
    items = workbench.items(visit.history, visit.bundle)
    return markup.history_list(items, choice.manifest.max_history, can_undo=bool(visit.past))


def users_markup(workbench: Workbench, visit: Visit, query: str) -> str:
    return markup.user_list(workbench.users(visit.bundle, query), visit.user, query)


def build(workbench: Workbench, demo: gr.Blocks) -> Explore:
    """Lay the tab out and wire it."""
    with gr.Tab("Explore") as tab:
        kept = gr.BrowserState(None, storage_key="llara-visit", secret="llara-visit-store")
        visit = gr.State(Visit())
        # What the predictions and their explanation on the page are of, and which visit has none because they failed.
        answered, explained, failed = gr.State(None), gr.State(None), gr.State(None)
        with gr.Row(elem_classes=["llara-columns"]):
            with gr.Column(scale=5, min_width=320):
                with gr.Column(elem_classes=["llara-card"]):
                    with gr.Row():
                        dataset = gr.Dropdown(label="Dataset", elem_id="dataset", min_width=130)
                        bundle = gr.Dropdown(label="Model", elem_id="bundle", min_width=130)
                    engine = gr.Radio(label="Engine", elem_id="engine", visible=False)
                    user_query = gr.Textbox(
                        label="User",
                        placeholder="Search by id, or by a title they know …",
                        elem_id="user-query",
                        max_length=200,
                    )
                    users = html("users")
                    examples = html("examples")
                with gr.Column(elem_classes=["llara-card"]):
                    history = html("history")
                    title_query = gr.Textbox(
                        label="Add a title", placeholder="Type a few letters …", elem_id="title-query", max_length=200
                    )
                    titles = html("titles")
            with gr.Column(scale=7, min_width=320):
                with gr.Column(elem_classes=["llara-card"]):
                    mode = gr.Radio(MODES, label="The model sees items as", elem_id="mode", value="hybrid")
                    num_candidates = gr.Slider(
                        FEWEST_CANDIDATES,
                        MOST_CANDIDATES,
                        value=DEFAULT_CANDIDATES,
                        step=5,
                        label="Candidates that the encoder proposes",
                        elem_id="candidates",
                    )
                with gr.Column(elem_classes=["llara-card"]):
                    predictions = html("predictions")
                with gr.Column(elem_classes=["llara-card"]):
                    why = html("why")
        with gr.Column(elem_classes=["llara-card"]):
            prompt = html("prompt")

    settings = [dataset, bundle, engine, mode, num_candidates]

    def show_settings(now: Visit) -> list[Any]:
        choice = workbench.bundle(now.bundle)
        engine_now = now.engine or workbench.engine_of(choice)
        return [
            gr.Dropdown(choices=dataset_choices(workbench), value=choice.dataset),
            gr.Dropdown(choices=bundle_choices(workbench, choice.dataset), value=choice.name),
            gr.Radio(choices=list(choice.engines), value=engine_now, visible=len(choice.engines) > 1),
            gr.Radio(value=str(now.mode)),
            gr.Slider(value=now.num_candidates),
        ]

    def show_visit(now: Visit) -> list[Any]:
        chips = markup.chips([(e.key, e.label) for e in examples_of(workbench, now.bundle)])
        return [now, *show_settings(now), users_markup(workbench, now, ""), chips, history_markup(workbench, now)]

    @on_page
    def start(stored: object) -> list[Any]:
        now = remembered_visit(workbench, stored)
        return show_visit(now) if now.bundle else [now, *[gr.skip()] * (len(settings) + 3)]

    @on_page
    def choose_dataset(name: str, now: Visit) -> list[Any]:
        if now.bundle and name == workbench.bundle(now.bundle).dataset:
            return [gr.skip()] * len(chosen)
        bundles = bundle_choices(workbench, name)
        if not bundles:
            raise NotFoundError.of("dataset", name, dataset_choices(workbench))
        return choose_bundle(bundles[0], now)

    @on_page
    def choose_bundle(name: str, now: Visit) -> list[Any]:
        if name == now.bundle:
            return [gr.skip()] * len(chosen)
        choice = workbench.bundle(name)
        same = choice.dataset == workbench.bundle(now.bundle).dataset
        # The history stays where the other model knows the same items.
        then = replace(now, bundle=choice.name, engine="") if same else first_visit(workbench, choice.name)
        # What was found among other users and titles goes: another dataset has other items under the same ids.
        return [*show_visit(then), "", "", ""]

    @on_page
    def show_settings_again(now: Visit) -> list[Any]:
        return show_settings(now)

    @on_page
    def search_users(query: str, now: Visit) -> str:
        return users_markup(workbench, now, query)

    @on_page
    def search_titles(query: str, now: Visit) -> str:
        return markup.title_list(workbench.search_titles(query, now.bundle), query)

    @on_page
    def act(now: Visit, query: str, event: gr.EventData) -> list[Any]:
        action, key = str(event.action), str(event.key)
        if action == "user":
            now = open_user(workbench, now, key)
        elif action == "example":
            by_key = {example.key: example for example in examples_of(workbench, now.bundle)}
            now = open_example(workbench, now, by_key[key])
        else:
            if action == "add":
                workbench.items([key], now.bundle)
            now = now.edited(action, key)
        return [now, history_markup(workbench, now), users_markup(workbench, now, query)]

    @on_page
    def set_mode(value: str, now: Visit) -> Visit:
        return replace(now, mode=PromptMode(value))

    @on_page
    def set_candidates(value: object, now: Visit) -> list[Any]:
        if not isinstance(value, int | float) or value < FEWEST_CANDIDATES:
            # A number that is still being typed. Where it is left like that, the field corrects itself.
            return [gr.skip(), gr.skip()]
        wanted = min(int(value), MOST_CANDIDATES)
        return [
            gr.skip() if wanted == now.num_candidates else replace(now, num_candidates=wanted),
            gr.skip() if wanted == value else gr.Slider(value=wanted),
        ]

    @on_page
    def set_engine(value: str, now: Visit) -> Visit:
        return replace(now, engine=value)

    def nothing_predicted(message: str, now: Visit, before: Question | None) -> list[Any]:
        # A browser does not remember what failed.
        return [markup.empty(message), "", gr.skip(), None, replace(now, past=())]

    @in_place(nothing_predicted)
    def predict(now: Visit, before: Question | None) -> list[Any]:
        if not now.history:
            text = "Nothing to predict from yet."
            return [markup.empty(text, "Add at least one item to the history."), "", now.as_document(), None, None]
        question = question_of(workbench, now)
        if question == before:
            return [gr.skip()] * len(predicted)
        answer = asking.recommend(workbench, now)
        shown = markup.predictions(answer.recommendation, answer.next_item, added=answer.added)
        return [shown, markup.prompt(answer.recommendation), now.as_document(), question, None]

    @on_page
    def predict_once(now: Visit, before: Question | None, without: Visit | None) -> list[Any]:
        return [gr.skip()] * len(predicted) if without == replace(now, past=()) else predict(now, before)

    @in_place(lambda message, *_: [markup.empty(message), None])
    def explain(now: Visit, question: Question | None, before: Question | None) -> list[Any]:
        if question is None:
            return ["", None]
        # Where the visitor has gone on, newer predictions bring their own explanation.
        if question == before or question != question_of(workbench, now):
            return [gr.skip()] * 2
        return [markup.why(asking.why(workbench, now)), question]

    @in_place(lambda message, *_: markup.empty(message))
    def explain_one(now: Visit, event: gr.EventData) -> str:
        return markup.why(asking.why(workbench, now, str(event.key)))

    opened = [visit, *settings, users, examples, history]
    chosen = [*opened, user_query, title_query, titles]
    predicted = [predictions, prompt, kept, answered, failed]
    # Of what is chosen while an event is under way, the last is what counts.
    latest: dict[str, Any] = {"trigger_mode": "always_last"}
    # Changes are also what the page makes itself, so they may change nothing of the visit. But the `input` of a
    # dropdown comes twice from a pointer, and from one that is only left; the `release` of a slider never from keys.
    choices = [
        dataset.change(choose_dataset, [dataset, visit], chosen, **latest, **QUICK),
        bundle.change(choose_bundle, [bundle, visit], chosen, **latest, **QUICK),
    ]
    for choice in choices:
        choice.failure(show_settings_again, visit, settings, **QUICK)
    changes = [
        *choices,
        # Unprocessed: Gradio fails on every number that is out of range while it is typed.
        num_candidates.change(
            set_candidates, [num_candidates, visit], [visit, num_candidates], preprocess=False, **latest, **QUICK
        ),
    ]
    acts = [
        demo.load(start, kept, opened, **QUICK),
        mode.input(set_mode, [mode, visit], visit, **latest, **QUICK),
        engine.input(set_engine, [engine, visit], visit, **latest, **QUICK),
        *(
            place.act(act, [visit, user_query], [visit, history, users], **QUICK)
            for place in (users, examples, history, titles)
        ),
    ]
    # Gradio's `input` event of a text box hears keys alone, neither a paste nor a deletion.
    user_query.change(search_users, [user_query, visit], users, **latest, **QUICK)
    title_query.change(search_titles, [title_query, visit], titles, **latest, **QUICK)
    asked: dict[str, Any] = {"api_visibility": "private", "show_progress": "minimal", **latest, **MODEL}
    predicting = [
        *(done.success(predict, [visit, answered], predicted, **asked) for done in acts),
        *(change.success(predict_once, [visit, answered, failed], predicted, **asked) for change in changes),
    ]
    for prediction in predicting:
        prediction.success(explain, [visit, answered, explained], [why, explained], **asked)
    predictions.act(explain_one, visit, why, **asked)
    return Explore(tab, visit)
