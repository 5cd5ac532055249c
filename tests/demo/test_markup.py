"""Markup holds every word from outside as text."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from demo import markup
from llara_app.catalogue import Item
from llara_app.explain import Explanation, Influence
from llara_app.prompts import PromptMode, build_prompt, find_template
from llara_app.recommendation import RankedItem, Recommendation
from llara_app.store.records import UserMatch

TAGS = {"div", "span", "p", "ul", "ol", "li", "button", "h2", "h3", "pre", "code", "strong", "table", "thead"}
TAGS |= {"tbody", "tr", "th", "td", "caption"}
ATTRIBUTES = {"class", "style", "title", "role", "tabindex", "type", "disabled", "reversed", "scope"}

hostile = st.text(max_size=40) | st.sampled_from(
    [
        "<script>alert(1)</script>",
        '"><img src=x onerror=alert(1)>',
        "' onclick='alert(1)",
        "&lt;b&gt;",
        "\x00\u202e<b>",
    ]
)


class Reader(HTMLParser):
    """Collects what a browser would make of markup."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.styles: set[str] = set()
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attributes}
        self.styles |= {value or "" for name, value in attributes if name == "style"}

    def handle_data(self, data: str) -> None:
        self.text += data


def assert_inert(text: str) -> Reader:
    read = Reader(text)
    assert read.tags <= TAGS
    assert {name for name in read.attributes if not name.startswith(("aria-", "data-"))} <= ATTRIBUTES
    assert all(style.startswith("width:") for style in read.styles)
    return read


def item(index: int, title: str) -> Item:
    return Item(index, f"id-{index}", title)


@given(st.lists(hostile, min_size=1, max_size=4), hostile)
def test_every_kind_of_markup_keeps_titles_and_ids_inert(titles: list[str], word: str) -> None:
    items = [Item(i, word + str(i), title) for i, title in enumerate(titles)]
    template = find_template("movie")
    built = build_prompt(template, items, items)
    ranked = tuple(RankedItem(each, 1 / len(items), -1.0, 1) for each in items)
    result = Recommendation(tuple(items), ranked, built, len(items), PromptMode.HYBRID, word, 1.0)
    influences = tuple(Influence(i, each, (-1) ** i * 0.5, 0.1, each) for i, each in enumerate(items))
    for text in (
        markup.history_list(items, 2, can_undo=True),
        markup.title_list(items, word),
        markup.title_list([], word),
        markup.user_list([UserMatch(word, 3, True, items[0])], word, word),
        markup.user_list([], word, word),
        markup.chips([(word, titles[0])]),
        markup.predictions(result, items[-1], shown=1, added=True),
        markup.plain_bars([(each, 0.5) for each in items], items[-1], shown=1),
        markup.why(Explanation(items[0], 0.5, influences, PromptMode.TEXT, 1.0)),
        markup.empty(word, word, word),
        markup.heading(word, word),
        *(markup.prompt(replace(result, mode=mode)) for mode in PromptMode),
    ):
        assert_inert(text)


def test_the_prompt_shows_exactly_what_the_llm_reads() -> None:
    built = build_prompt(find_template("movie"), [item(0, "Heat (1995)")], [item(1, "Ran (1985)")])
    for mode in PromptMode:
        for num_behaviour in (1, 2):
            result = Recommendation(built.history, (), built, num_behaviour, mode, "torch", 1.0)
            body = markup.prompt(result).split('<div class="prompt"')[1].split(">", 1)[1].removesuffix("</div>")
            read = built.text(mode, num_behaviour)
            assert Reader(body).text == read.replace("<|item_0|>", "◆ 0").replace("<|item_1|>", "◆ 1")


def test_an_item_added_after_training_is_shown_without_the_token_that_the_llm_does_not_get() -> None:
    built = build_prompt(find_template("movie"), [item(0, "Heat (1995)")], [item(1, "Ran (1985)")])
    text = markup.prompt(Recommendation(built.history, (), built, 1, PromptMode.HYBRID, "torch", 1.0))
    assert "◆ 0" in text and "◆ 1" not in text
    assert "1 behaviour tokens" in text


def test_the_legend_tells_marks_apart_without_colour() -> None:
    text = markup.legend(PromptMode.HYBRID)
    assert 'class="item history"' in text and 'class="item candidate"' in text and "◆" in text
    assert "◆" not in markup.legend(PromptMode.TEXT)
    assert 'class="item' not in markup.legend(PromptMode.BEHAVIOUR)


def test_a_long_history_is_cut_and_says_where_the_model_stops_reading() -> None:
    items = [item(i, f"Film {i}") for i in range(500)]
    text = markup.history_list(items, 10)
    assert text.count('data-action="remove"') == markup.SHOWN_HISTORY
    assert text.count("older than the model reads") == 1
    assert "and 440 older" in text
    assert "500 items" in text


def test_the_true_next_item_is_drawn_wherever_it_ranks() -> None:
    items = [item(i, f"Film {i}") for i in range(20)]
    ranked = tuple(RankedItem(each, (20 - each.index) / 210, -1.0, each.index + 1) for each in items)
    built = build_prompt(find_template("movie"), items[:1], items)
    result = Recommendation(tuple(items[:1]), ranked, built, len(items), PromptMode.TEXT, "torch", 12.3)
    text = Reader(markup.predictions(result, items[17], shown=5)).text
    assert "Film 17" in text and markup.NEXT in text and "Film 16" not in text
    assert "12 ms" in text
    assert "less well" not in text
    learned_from_fewer = replace(result, num_trained=19)
    assert "choose among 19; 20 are ordered less well" in Reader(markup.predictions(learned_from_fewer, None)).text


def test_why_says_in_words_what_bars_say_in_width() -> None:
    influences = (
        Influence(0, item(0, "Pro"), 0.7, 0.2, item(5, "Other")),
        Influence(1, item(1, "Contra"), -0.7, 0.4, item(5, "Other")),
    )
    text = markup.why(Explanation(item(3, "Target"), 0.3, influences, PromptMode.TEXT, 5.0))
    assert 'aria-label="speaks for it, × 2.01"' in text
    assert 'aria-label="speaks against it, ÷ 2.01"' in text
