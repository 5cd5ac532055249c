"""Made-up titles of films, games and artists, as diverse as the real ones the nano LLM will meet.

Nothing here names a real work on purpose: words, names and years are thrown together, so that a model that copies
these titles has learned to copy and not to remember.
"""

from __future__ import annotations

import random
import tomllib
from collections.abc import Callable
from importlib import resources

WORDS: dict[str, list[str]] = {
    kind: words.split()
    for kind, words in tomllib.loads(
        resources.files("train").joinpath("nano_words.toml").read_text(encoding="utf-8")
    ).items()
}

SCRIPTS = (
    "абвгдежзиклмнопрстуфхцчшыьэюя",
    "αβγδεζηθικλμνξοπρστυφχψω",
    "あいうえおかきくけこさしすせそたちつてとなにのはまみもやゆよらりるれろわんアイウエオカキクシスタテトナニマミラリルレロン",
    "山川日月火水木金土人大小中上下東西南北国心愛夢花風雨星空海天地王女子",
    "가나다라마바사아자차카타파하고노도로모보소오조호기니디리미비시이지히",
)

YEARS = range(1915, 2026)


class TitleGenerator:
    """Draws made-up titles from a seeded source.

    Args:
        rng: the only source of chance; equal states give equal titles.
    """

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self._kinds: dict[str, Callable[[], str]] = {
            "movie": self.movie,
            "game": self.game,
            "artist": self.artist,
            "item": self.anything,
        }

    def titles(self, domain: str, count: int) -> list[str]:
        """`count` distinct titles in random order; some begin alike, as the parts of a series do."""
        rng = self.rng
        draw = self._kinds[domain]
        alike = rng.random() < 0.4
        found: dict[str, None] = {}
        while len(found) < count:
            title = draw()
            found[title] = None
            if alike and rng.random() < 0.25:
                found.update(dict.fromkeys(self.sequels(title, rng.randint(1, 3))))
        titles = list(found)
        rng.shuffle(titles)
        return titles[:count]

    def sequels(self, title: str, count: int) -> list[str]:
        """`count` further titles of the series that `title` began."""
        rng = self.rng
        name, bracket, rest = title.partition(" (")
        first_year = int(rest[:4]) if bracket and rest[:4].isdigit() else 0
        style = rng.randrange(3)
        parts = []
        for number in range(count):
            if style == 0:
                part = f"{name} {number + 2}"
            elif style == 1:
                part = f"{name} {WORDS['roman'][number]}"
            else:
                part = f"{name}{rng.choice((': ', ' - ', ' '))}{self._phrase(rng.randint(1, 3))}"
            if first_year:
                first_year += rng.randint(1, 6)
                part += f" ({first_year})"
            parts.append(part)
        return parts

    def movie(self) -> str:
        rng = self.rng
        name = self._movie_name()
        if rng.random() < 0.04:
            name += f" ({self._foreign(rng.randint(1, 4))})"
        return name if rng.random() < 0.12 else f"{name} ({rng.choice(YEARS)})"

    def game(self) -> str:
        rng = self.rng
        style = rng.random()
        name = self._word() if style < 0.3 else self._phrase(rng.randint(1, 3))
        if rng.random() < 0.12:
            name = rng.choice((str.upper, str.lower))(name)
        if rng.random() < 0.1:
            name += rng.choice(("™", "®", "!", "?", "+", "..."))
        if rng.random() < 0.2:
            name += " " + rng.choice((str(rng.randint(2, 9)), str(rng.choice(YEARS)), rng.choice(WORDS["roman"])))
        if rng.random() < 0.35:
            name += rng.choice((": ", ": ", " - ", " – ", " ~ ")) + self._phrase(rng.randint(1, 4))
        if rng.random() < 0.25:
            name += " " + " ".join(rng.sample(WORDS["game_words"], rng.choice((1, 1, 1, 2, 3))))
        return name

    def artist(self) -> str:
        rng = self.rng
        style = rng.random()
        if style < 0.3:
            return self._person()
        if style < 0.5:
            return self._word()
        if style < 0.62:
            return f"The {self._pick(WORDS['nouns'])}s"
        if style < 0.68:
            return f"{self._person()} & The {self._pick(WORDS['nouns'])}s"
        if style < 0.72:
            return f"{self._person()} {rng.choice(('feat.', 'and', '&', 'vs.', 'with'))} {self._person()}"
        if style < 0.76:
            return f"DJ {self._word()}"
        if style < 0.8:
            return rng.choice((str.upper, str.lower))(self._phrase(rng.randint(1, 3)))
        if style < 0.84:
            return f"{self._pick(WORDS['nouns'])}{rng.choice(('-', ' ', ''))}{rng.randint(1, 999)}"
        if style < 0.87:
            return self._script()
        if style < 0.9:
            return "".join(rng.choice("ABCDEFGHIJKLMNOPRSTUVWXYZ0123456789.!/") for _ in range(rng.randint(2, 6)))
        return self._phrase(rng.randint(1, 5))

    def anything(self) -> str:
        rng = self.rng
        if rng.random() < 0.85:
            return rng.choice((self.movie, self.game, self.artist))()
        return self._odd()

    def _odd(self) -> str:
        rng = self.rng
        style = rng.randrange(5)
        if style == 0:
            return str(rng.randint(0, 10 ** rng.randint(1, 5)))
        if style == 1:
            return self._phrase(rng.randint(8, 14))
        if style == 2:
            alphabet = (
                "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 -_.,:;!?#&%*+/'\"()[]<>|@$=~^éüñçøß"
            )
            return "".join(rng.choice(alphabet) for _ in range(rng.randint(3, 16))).strip() or "?"
        if style == 3:
            return f"{self._script()} ({self._word()})"
        volume = rng.choice(("No.", "Vol.", "#", "Part"))
        return f"[{self._pick(WORDS['nouns'])}] {self._phrase(2)}, {volume} {rng.randint(1, 40)}"

    def _movie_name(self) -> str:
        rng = self.rng
        style = rng.random()
        if style < 0.2:
            return self._phrase(rng.randint(1, 2))
        if style < 0.3:
            return f"The {self._phrase(rng.randint(1, 2))}"
        if style < 0.38:
            article = ("The", "The", "A", "An", "La", "Les", "Il", "Das")
            return f"{self._phrase(rng.randint(1, 3))}, {rng.choice(article)}"
        if style < 0.46:
            link = rng.choice(("of", "of the", "in the", "and the", "on"))
            return f"{self._pick(WORDS['nouns'])} {link} {self._phrase(1)}"
        if style < 0.52:
            return f"{rng.choice(WORDS['first_names'])}'s {self._phrase(1)}"
        if style < 0.6:
            return self._person()
        if style < 0.66:
            return f"{self._phrase(1)} {rng.choice(('and', '&', 'or', 'vs.'))} {self._phrase(1)}"
        if style < 0.72:
            return f"{self._phrase(rng.randint(1, 2))}: {self._phrase(rng.randint(1, 4))}"
        if style < 0.8:
            return self._foreign(rng.randint(1, 4))
        if style < 0.85:
            return f"{self._phrase(rng.randint(1, 2))} {rng.choice((*WORDS['roman'], *'23456789'))}"
        if style < 0.9:
            return self._word()
        if style < 0.93:
            return f"{rng.randint(2, 999)} {self._pick(WORDS['nouns'])}s"
        return self._sentence()

    def _sentence(self) -> str:
        rng = self.rng
        words = [rng.choice(("How", "When", "What", "Who", "Don't", "I", "You", "Let's", "To", "Never"))]
        words.append(rng.choice(WORDS["verbs"]))
        for _ in range(rng.randint(1, 6)):
            words.append(rng.choice(WORDS["small_words"] if rng.random() < 0.5 else WORDS["nouns"]))
        return " ".join(word[:1].upper() + word[1:] if len(word) > 3 else word for word in words)

    def _phrase(self, length: int) -> str:
        rng = self.rng
        words: list[str] = []
        for position in range(length):
            chance = rng.random()
            if position == length - 1:
                words.append(self._pick(WORDS["nouns"]) if chance < 0.8 else self._word())
            elif chance < 0.45:
                words.append(self._pick(WORDS["adjectives"]))
            elif chance < 0.6:
                words.append(self._pick(WORDS["verbs"]))
            elif chance < 0.7:
                words.append(self._pick(WORDS["nouns"]))
            elif chance < 0.8:
                words.append(self._word())
            else:
                words.append(
                    rng.choice(WORDS["small_words"]) if position else rng.choice(WORDS["small_words"]).capitalize()
                )
        return " ".join(words)

    def _person(self) -> str:
        rng = self.rng
        middle = f" {rng.choice('ABCDEFGHIJKLMNOPRSTUVW')}." if rng.random() < 0.06 else ""
        last = rng.choice(WORDS["last_names"]) if rng.random() < 0.7 else self._word()
        return f"{rng.choice(WORDS['first_names'])}{middle} {last}"

    def _foreign(self, length: int) -> str:
        words = [self.rng.choice(WORDS["foreign"]) for _ in range(length)]
        words[0] = words[0][:1].upper() + words[0][1:]
        return " ".join(word.capitalize() if self.rng.random() < 0.3 else word for word in words)

    def _script(self) -> str:
        rng = self.rng
        letters = rng.choice(SCRIPTS)
        return "".join(rng.choice(letters) for _ in range(rng.randint(2, 8))).capitalize()

    def _pick(self, words: list[str]) -> str:
        word = self.rng.choice(words)
        return word[:1].upper() + word[1:]

    def _word(self) -> str:
        """A pronounceable word that no dictionary has."""
        rng = self.rng
        syllables = (
            rng.choice(WORDS["consonants"])
            + rng.choice(WORDS["vowels"])
            + (rng.choice(WORDS["endings"]) if rng.random() < 0.4 else "")
            for _ in range(rng.choice((1, 2, 2, 3)))
        )
        return "".join(syllables).capitalize()
