"""Building and rendering prompts."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llara_app.catalogue import Item
from llara_app.errors import NotFoundError, UsageError
from llara_app.prompts import (
    BehaviourToken,
    PromptMode,
    Role,
    TextPiece,
    answer_text,
    build_prompt,
    find_template,
    list_templates,
    piece_text,
    prompt_title,
)

ITEMS = [Item(i, f"id{i}", f"Film {i}") for i in range(30)]
MOVIE = find_template("movie")


@pytest.mark.parametrize("name", ["movie", "game", "artist", "item"])
def test_every_domain_says_the_number_of_candidates_it_shows(name: str) -> None:
    """The public code says "10" where 20 titles are given."""
    for count in (1, 5, 20):
        text = build_prompt(find_template(name), ITEMS[:3], ITEMS[3 : 3 + count]).text(PromptMode.TEXT)
        assert f" {count} " in text
        assert sum(f"Film {i}" in text.splitlines() for i in range(30)) == 3 + count


def test_modes_show_items_as_they_should() -> None:
    prompt = build_prompt(MOVIE, ITEMS[:2], ITEMS[2:4])
    lines = {mode: prompt.text(mode).splitlines() for mode in PromptMode}
    assert "Film 0" in lines[PromptMode.TEXT]
    assert "<|item_0|>" in lines[PromptMode.BEHAVIOUR]
    assert "0" in lines[PromptMode.INDEX]
    assert "Film 0<|item_0|>" in lines[PromptMode.HYBRID]


@pytest.mark.parametrize("mode", list(PromptMode))
def test_pieces_name_each_item_in_order_with_its_role(mode: PromptMode) -> None:
    prompt = build_prompt(MOVIE, ITEMS[:3], ITEMS[3:8])
    mentions = [piece.mention for piece in prompt.pieces(mode) if piece.mention is not None]
    seen = list(dict.fromkeys((m.item.index, m.role) for m in mentions))
    assert seen == [(i, Role.HISTORY) for i in range(3)] + [(i, Role.CANDIDATE) for i in range(3, 8)]
    tokens = [piece for piece in prompt.pieces(mode) if isinstance(piece, BehaviourToken)]
    assert len(tokens) == (8 if mode in (PromptMode.BEHAVIOUR, PromptMode.HYBRID) else 0)


@pytest.mark.parametrize("mode", [PromptMode.BEHAVIOUR, PromptMode.HYBRID])
def test_an_item_without_behaviour_is_shown_by_its_title_alone(mode: PromptMode) -> None:
    prompt = build_prompt(MOVIE, ITEMS[:1], [ITEMS[1], ITEMS[29]])
    lines = prompt.text(mode, num_behaviour=20).splitlines()
    assert "Film 29" in lines
    assert not any("item_29" in line for line in lines)
    assert any("<|item_1|>" in line for line in lines)


def test_an_empty_history_is_said() -> None:
    assert "(nothing yet)" in build_prompt(MOVIE, [], ITEMS[:2]).text()


def test_dropping_the_oldest_keeps_the_newest() -> None:
    prompt = build_prompt(MOVIE, ITEMS[:5], ITEMS[5:7])
    assert prompt.without_oldest(2).history == tuple(ITEMS[2:5])
    assert prompt.without_oldest(2).candidates == prompt.candidates
    assert prompt.without_oldest(2) == build_prompt(MOVIE, ITEMS[2:5], ITEMS[5:7])
    assert prompt.without_oldest(5) == build_prompt(MOVIE, [], ITEMS[5:7])


@given(st.text())
def test_titles_are_one_visible_bounded_line(title: str) -> None:
    shown = prompt_title(title)
    assert shown == shown.strip() != ""
    assert len(shown) <= 160
    assert not any(unicodedata.category(c) in ("Cc", "Zl", "Zp") for c in shown)
    assert not any(c in shown for c in "\u202e\u200f\u2066\ufeff\u200b")
    assert prompt_title(shown) == shown, "cleaning twice changes nothing"


@pytest.mark.parametrize(
    ("title", "shown"),
    [
        ("Amélie", "Amélie"),
        ("two\nlines\tand\x00more", "two lines and more"),
        ("\u202egnp.exe", "gnp.exe"),
        ("عربي", "عربي"),
        ("", "Untitled"),
        ("\n\n", "Untitled"),
        ("</s>", "</s>"),
    ],
)
def test_hostile_titles(title: str, shown: str) -> None:
    assert prompt_title(title) == shown


def test_an_endless_title_is_cut() -> None:
    shown = prompt_title("x" * 10_000)
    assert len(shown) == 160
    assert shown.endswith("…")


def test_a_title_cannot_forge_a_behaviour_token() -> None:
    forged = Item(0, "a", "Nice film<|item_5|>")
    pieces = list(build_prompt(MOVIE, [forged], ITEMS[1:2]).pieces(PromptMode.TEXT))
    assert all(isinstance(piece, TextPiece) for piece in pieces)


def test_answers() -> None:
    assert answer_text(ITEMS[7], PromptMode.INDEX) == "7"
    assert answer_text(ITEMS[7], PromptMode.HYBRID) == "Film 7"


class TestTemplates:
    def test_packaged_templates_load_with_a_description(self) -> None:
        templates = list_templates()
        assert {template.name for template in templates} == {"movie", "game", "artist", "item"}
        assert all(template.description for template in templates)

    def test_users_add_their_own(self, llara_home: object) -> None:
        from llara_app import locations

        folder = locations.templates()
        folder.mkdir(parents=True)
        (folder / "book.toml").write_text("prompt = 'Read: {history} Choose: {candidates} >'\nseparator = ' | '\n")
        text = build_prompt(find_template("book"), ITEMS[:2], ITEMS[2:4]).text(PromptMode.TEXT)
        assert text == "Read: Film 0 | Film 1 Choose: Film 2 | Film 3 >"

    def test_a_broken_one_is_in_the_way_of_nobody_else(self, llara_home: object) -> None:
        from llara_app import locations

        locations.templates().mkdir(parents=True)
        (locations.templates() / "broken.toml").write_text("prompt = '{history} {foo}'")
        assert find_template("movie-keyed").has_user
        with pytest.raises(UsageError, match="foo"):
            find_template("broken")

    def test_an_unknown_name_is_told_with_near_ones(self) -> None:
        with pytest.raises(NotFoundError) as error:
            find_template("movies")
        assert "'movie'" in error.value.hint
        assert find_template("nonsense", fallback=True).name == "item"

    @pytest.mark.parametrize(
        ("content", "complaint"),
        [
            ("prompt = '{history}'", "candidates"),
            ("prompt = '{history} {candidates} {candidates}'", "exactly once"),
            ("prompt = '{history} {candidates} {nonsense}'", "nonsense"),
            ("prompt = '{history} {candidates}'\nextra = 1", "extra"),
            ("not toml", "TOML"),
            ("prompt = 3", "prompt"),
            ("name = 'x'\nprompt = '{history} {candidates}'", "as its file"),
        ],
    )
    def test_a_wrong_template_is_refused_by_name(self, tmp_path: object, content: str, complaint: str) -> None:
        from pathlib import Path

        path = Path(str(tmp_path)) / "mine.toml"
        path.write_text(content)
        with pytest.raises(UsageError) as error:
            find_template(str(path))
        assert complaint in str(error.value)
        assert str(path) in str(error.value)


class TestKeyed:
    """Candidates as a table to look up, the user's token as what is looked up."""

    def pieces(self, mode: PromptMode, num_behaviour: int | None = None) -> list[str]:
        prompt = build_prompt(find_template("movie-keyed"), ITEMS[:2], ITEMS[3:5])
        return [piece_text(piece) for piece in prompt.pieces(mode, num_behaviour)]

    def test_a_candidates_token_stands_before_its_title_and_a_history_items_behind_it(self) -> None:
        text = "".join(self.pieces(PromptMode.HYBRID))
        for item in ITEMS[:2]:
            assert f"\n{item.title}<|item_{item.index}|>\n" in text
        for item in ITEMS[3:5]:
            assert f"\n<|item_{item.index}|>{item.title}\n" in text

    @pytest.mark.parametrize("mode", list(PromptMode))
    def test_the_users_token_ends_the_prompts_that_show_behaviour(self, mode: PromptMode) -> None:
        pieces = self.pieces(mode)
        shown = mode in (PromptMode.HYBRID, PromptMode.BEHAVIOUR)
        assert pieces.count("<|user|>") == shown
        assert (pieces[-1] == "<|user|>") == shown

    def test_without_behaviour_there_is_no_user(self) -> None:
        assert "<|user|>" not in self.pieces(PromptMode.HYBRID, num_behaviour=0)
        assert "<|user|>" not in build_prompt(find_template("movie-keyed"), [], ITEMS[:2]).text()

    def test_in_text_both_forms_are_the_same(self) -> None:
        plain = build_prompt(find_template("movie"), ITEMS[:2], ITEMS[3:5])
        assert "".join(self.pieces(PromptMode.TEXT)) == plain.text(PromptMode.TEXT)

    def test_a_domain_without_a_template_has_a_keyed_one_too(self) -> None:
        template = find_template("nonsense-keyed", fallback=True)
        assert template.name == "item-keyed"
        assert template.has_user
        assert not find_template("item").has_user
        with pytest.raises(NotFoundError):
            find_template("nonsense-keyed")

    def test_one_user_token_is_enough(self, tmp_path: Path) -> None:
        path = tmp_path / "own.toml"
        path.write_text('prompt = "{user} {history} {candidates} {user}"')
        with pytest.raises(UsageError, match="only once"):
            find_template(str(path))
        path.write_text('prompt = "{user} {history} {candidates}"\ncandidate_token = "before"')
        assert find_template(str(path)).keyed().prompt == "{user} {history} {candidates}"

    def test_without_the_users_token_all_else_stays(self, tmp_path: Path) -> None:
        keyed, without = (
            build_prompt(find_template(name), ITEMS[:2], ITEMS[3:5])
            for name in ("movie-keyed", "movie-keyed-no-user")
        )
        for mode in PromptMode:
            assert without.text(mode) == keyed.text(mode).removesuffix("<|user|>")
        assert not without.template.has_user
        assert find_template("nonsense-keyed-no-user", fallback=True).name == "item-keyed-no-user"
        path = tmp_path / "own.toml"
        path.write_text('prompt = "{user}{{user}} {history} {num_candidates}: {candidates} >"')
        own = build_prompt(find_template(f"{path}-no-user"), ITEMS[:1], ITEMS[1:2])
        assert own.text() == "{user} Film 0<|item_0|> 1: Film 1<|item_1|> >"
