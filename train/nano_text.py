"""What the nano LLM reads: film facts, histories, lists, and prompts to choose from; all generated, from one seed.

Every choice carries the probabilities of *all* its candidates rather than one drawn answer: the process is ours, so
the model can learn from what it would do on average, which takes far fewer examples than learning from draws.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np

from llara_app.catalogue import Item
from llara_app.datasets.demo.catalogue import GENRES, Film, film_facts
from llara_app.prompts import HybridPrompt, PromptMode, build_prompt, find_template, prompt_title
from train.nano_titles import WORDS, TitleGenerator

LATENT_SIZE = 64
"""Width of the made-up item embeddings: the encoders' own."""

DOMAINS = ("movie", "game", "artist", "item")
TEMPLATE_OF = {domain: f"{domain}-keyed" for domain in DOMAINS}
"""The nano LLM reads keyed prompts: what it learns of vectors is to find the key that is most like the last token."""

WHOLE_WORDS = ("adjectives", "nouns", "verbs", "first_names", "small_words", "game_words")
MAX_CANDIDATES = 20
MAX_HISTORY = 10

World = Literal["random", "sequels", "vectors", "films", "film-vectors"]
"""Why a candidate is chosen: for no reason; because its title continues one of the history; because its vector is
near the user's; because of what is known about the films; or both of the last two."""

SEQUEL_PULL = 6.0
NEARNESS_PULL = 20.0
RELATED_PULL = 2.0
"""How strongly a sequel, a near vector (a cosine) and a related film draw, in nats. Sharp on purpose: attention that
must rest on one candidate is learned far sooner than attention that must weigh twenty."""

SEQUEL_ROUNDS = 0.3
"""Of the documents of many choices behind one history, so many are about sequels, the others about films."""

RECENCY = 0.8
"""In the worlds of films each step back in the history counts this much less."""


@dataclass(frozen=True)
class Choice:
    """A prompt and how likely each of its candidates is to be chosen.

    Attributes:
        prompt: items are numbered by their row in `vectors` of the pool they came with.
        probabilities: one for each candidate; they sum to 1.
        mode: ``text`` or ``hybrid``.
        user: the row in `vectors` of the user's token, in hybrid mode.
        free: there is no reason to choose any of them before another.
    """

    prompt: HybridPrompt
    probabilities: tuple[float, ...]
    mode: PromptMode
    user: int
    free: bool = False


def sentences_about(film: Film, rng: random.Random) -> list[str]:
    """The facts of one film as plain sentences, in random order and wording."""
    title = film.title
    genres = " and ".join(genre.lower() for genre in film.genres)
    facts = [
        rng.choice((f"{title} is a {genres} film.", f"The genre of {title} is {genres}.")),
        rng.choice((f"{title} was directed by {film.director}.", f"{film.director} directed {title}.")),
        f"{film.name} came out in {film.year}.",
    ]
    if film.series:
        facts.append(f"{title} is part {film.part} of {film.series}.")
    if film.actors:
        facts.append(f"{title} stars {' and '.join(film.actors)}.")
    rng.shuffle(facts)
    return facts


class TextSource:
    """Draws texts and choices.

    Args:
        seed: equal seeds give equal texts.
        films: the world that is talked about; the demo catalogue's by default.
        pieces: strings to make up meaningless titles from, a tokenizer's vocabulary for example.
    """

    def __init__(self, seed: int, films: Sequence[Film] | None = None, pieces: Sequence[str] | None = None) -> None:
        self.rng = random.Random(seed)
        self.numbers = np.random.default_rng(seed)
        self.titles = TitleGenerator(self.rng)
        self.films = tuple(films if films is not None else film_facts())
        self.pieces = pieces
        self.templates = {domain: find_template(name) for domain, name in TEMPLATE_OF.items()}
        self._related = _relatedness(self.films)

    def vocabulary_texts(self, count: int) -> Iterator[str]:
        """Texts for training the tokenizer: every film and template, and `count` made-up titles of each domain."""
        for film in self.films:
            yield from sentences_about(film, self.rng)
            yield from (film.title, film.title)
        # A title's first word has no space before it: without these lines it would fall into pieces.
        common = [word for kind in WHOLE_WORDS for word in WORDS[kind]]
        for _ in range(count // 2000):
            yield "\n".join(word[:1].upper() + word[1:] for word in common)
        for domain in DOMAINS:
            for _ in range(200):
                yield self.templates[domain].prompt
            for _ in range(count // 20):
                yield "\n".join(self.titles.titles(domain, 20))

    def film_sentences(self, count: int) -> str:
        """Sentences about a few films, one a line, about `count` of them."""
        lines: list[str] = []
        while len(lines) < count:
            lines += sentences_about(self.rng.choice(self.films), self.rng)
        return "\n".join(lines)

    def list_to_repeat(self, count: int) -> str:
        """`count` titles, one a line."""
        return "\n".join(self._made_up_titles(self.rng.choice(DOMAINS), count))

    def _made_up_titles(self, domain: str, count: int) -> list[str]:
        """Titles, of which every other list is meaningless where there are pieces.

        Words that often begin a title would otherwise be answered because they are likely, and not because they
        were read: where every piece is as likely, only copying helps.
        """
        rng = self.rng
        if not self.pieces or rng.random() < 0.5:
            return self.titles.titles(domain, count)
        found: dict[str, None] = {}
        while len(found) < count:
            found[prompt_title("".join(rng.choices(self.pieces, k=rng.randint(1, 6))))] = None
        return list(found)

    def choices(
        self, worlds: Sequence[World], history_sizes: Sequence[int], candidate_sizes: Sequence[int]
    ) -> tuple[list[Choice], np.ndarray]:
        """One choice for each entry of the three equally long lists.

        Returns:
            The choices and the vectors of their items and users, ``[n, 64]``, drawn from one latent space.
        """
        mixing = self.numbers.standard_normal((self.rng.choice((8, 16, 32, 64)), LATENT_SIZE))
        film_vectors = self._film_vectors()
        found: list[Choice] = []
        vectors: list[np.ndarray] = []
        start = 0
        for world, history_size, candidate_size in zip(worlds, history_sizes, candidate_sizes, strict=True):
            if world in ("films", "film-vectors"):
                titles, probabilities, rows = self._film_choice(history_size, candidate_size, film_vectors)
                domain = "movie"
            else:
                domain = self.rng.choice(DOMAINS)
                titles, probabilities, rows = self._made_up_choice(
                    world, domain, history_size, candidate_size, mixing
                )
            items = [Item(start + i, str(start + i), title) for i, title in enumerate(titles)]
            start += len(rows)
            prompt = build_prompt(self.templates[domain], items[:history_size], items[history_size:])
            mode = PromptMode.HYBRID if world in ("vectors", "film-vectors") else PromptMode.TEXT
            found.append(Choice(prompt, tuple(probabilities), mode, start - 1, free=bool(np.ptp(probabilities) == 0)))
            vectors.append(rows)
        return found, np.concatenate(vectors).astype(np.float32)

    def keyed_list(self, count: int) -> tuple[list[str], np.ndarray]:
        """`count` titles and their keys, then as many vectors like these keys, ``[2 * count, 64]``."""
        mixing = self.numbers.standard_normal((self.rng.choice((8, 16, 32, 64)), LATENT_SIZE))
        keys = _unit(self.numbers.standard_normal((count, len(mixing))))
        noise = _unit(self.numbers.standard_normal(keys.shape))
        likeness = self.numbers.uniform(0.5, 1.0, (count, 1))
        titles = self._made_up_titles(self.rng.choice(DOMAINS), count)
        return titles, _mixed(np.vstack([keys, _moved(noise, keys, likeness)]), mixing)

    def _made_up_choice(
        self, world: World, domain: str, history_size: int, candidate_size: int, mixing: np.ndarray
    ) -> tuple[list[str], np.ndarray, np.ndarray]:
        rng, numbers = self.rng, self.numbers
        titles = self._made_up_titles(domain, history_size + candidate_size)
        logits = np.zeros(candidate_size)
        if world == "sequels" and history_size:
            sequel = self.titles.sequels(rng.choice(titles[:history_size]), 1)[0]
            if sequel not in titles:
                place = rng.randrange(candidate_size)
                titles[history_size + place] = sequel
                logits[place] = SEQUEL_PULL
        latents = _unit(numbers.standard_normal((len(titles) + 1, mixing.shape[0])))
        if world == "vectors" and history_size:
            # The history is as near to the user as what comes next, and must not be taken for it.
            user = latents[-1]
            latents[:history_size] = _moved(latents[:history_size], user, rng.uniform(0.3, 0.9))
            near = rng.sample(range(candidate_size), min(rng.randint(1, 3), candidate_size))
            chosen = [history_size + place for place in near]
            latents[chosen] = _moved(latents[chosen], user, rng.uniform(0.4, 0.95))
            logits = NEARNESS_PULL * latents[history_size:-1] @ user
        return titles, _softmax(logits), _mixed(latents, mixing)

    def _film_choice(
        self, history_size: int, candidate_size: int, vectors: np.ndarray
    ) -> tuple[list[str], np.ndarray, np.ndarray]:
        history = self._film_history(history_size)
        candidates, probabilities = self._film_candidates(history, candidate_size)
        chosen = history + candidates
        weights = RECENCY ** np.arange(len(history))[::-1]
        user = weights @ vectors[history] / math.sqrt(weights @ weights) if history else np.zeros(LATENT_SIZE)
        titles = [self.films[i].title for i in chosen]
        return titles, probabilities, np.vstack([vectors[chosen], user])

    def _film_history(self, size: int) -> list[int]:
        """A viewer who drifts from each film to a related one, now and then to any."""
        rng = self.rng
        history: list[int] = [rng.randrange(len(self.films))]
        while len(history) < size:
            related = [int(i) for i in np.argsort(-self._related[history[-1]])[:40] if int(i) not in history]
            step = rng.choice(related[: rng.choice((3, 10, 30))] if rng.random() < 0.8 else range(len(self.films)))
            if step not in history:
                history.append(step)
        return history[:size]

    def _film_candidates(self, history: Sequence[int], size: int) -> tuple[list[int], np.ndarray]:
        """Films not in the history, one or two of them related to it, and how likely each of them is chosen."""
        rng = self.rng
        others = [i for i in range(len(self.films)) if i not in set(history)]
        pull = self._pull(history)
        best = sorted(others, key=lambda i: -pull[i])[:15]
        candidates = rng.sample(best, min(rng.randint(1, 2), size))
        candidates += rng.sample([i for i in others if i not in candidates], size - len(candidates))
        rng.shuffle(candidates)
        return candidates, _softmax(RELATED_PULL * pull[candidates])

    def film_watching(self, count: int) -> tuple[list[int], np.ndarray]:
        """`count` films that one viewer watches, each drawn by its relatedness to those before.

        Returns:
            The films' numbers, and how likely each film of the catalogue was at each turn, ``[count, n_films]``.
        """
        watched: list[int] = []
        chances = np.zeros((count, len(self.films)))
        for turn in range(count):
            logits = RELATED_PULL * self._pull(watched)
            logits[watched] = -np.inf
            chances[turn] = _softmax(logits)
            watched.append(int(self.numbers.choice(len(self.films), p=chances[turn])))
        return watched, chances

    def rounds(self, history_size: int, candidate_sizes: Sequence[int]) -> list[Choice]:
        """Choices by titles alone that share one history: of sequels of made-up titles, or of related films."""
        if self.rng.random() < SEQUEL_ROUNDS:
            domain = self.rng.choice(DOMAINS)
            history, offers = self._sequel_rounds(domain, history_size, candidate_sizes)
        else:
            domain = "movie"
            watched = self._film_history(history_size)
            history = [self.films[i].title for i in watched]
            made = [self._film_candidates(watched, size) for size in candidate_sizes]
            offers = [([self.films[i].title for i in candidates], chances) for candidates, chances in made]
        seen = [Item(number, str(number), title) for number, title in enumerate(history)]
        found = []
        for offered, chances in offers:
            items = [Item(number, str(number), title) for number, title in enumerate(offered, start=len(seen))]
            prompt = build_prompt(self.templates[domain], seen, items)
            found.append(Choice(prompt, tuple(chances), PromptMode.TEXT, 0))
        return found

    def _sequel_rounds(
        self, domain: str, history_size: int, candidate_sizes: Sequence[int]
    ) -> tuple[list[str], list[tuple[list[str], np.ndarray]]]:
        """Made-up titles, then for each size as many others, one of which continues one of the first."""
        rng = self.rng
        titles = self.titles.titles(domain, history_size + sum(candidate_sizes))
        history, others = titles[:history_size], titles[history_size:]
        offers = []
        for size in candidate_sizes:
            offered, others = others[:size], others[size:]
            logits = np.zeros(size)
            place = rng.randrange(size)
            sequel = self.titles.sequels(rng.choice(history), 1)[0]
            if sequel not in titles:
                offered[place] = sequel
                logits[place] = SEQUEL_PULL
            offers.append((offered, _softmax(logits)))
        return history, offers

    def _pull(self, history: Sequence[int]) -> np.ndarray:
        if not history:
            return np.zeros(len(self.films))
        weights = RECENCY ** np.arange(len(history))[::-1]
        pulls: np.ndarray = (weights[:, None] * self._related[list(history)]).sum(axis=0) / weights.sum() ** 0.5
        return pulls

    def _film_vectors(self) -> np.ndarray:
        """``[n_films, 64]``: near for films that share genres, director or series, in a space drawn anew."""
        space: dict[str, np.ndarray] = {}

        def place(name: str, strength: float) -> np.ndarray:
            if name not in space:
                space[name] = self.numbers.standard_normal(LATENT_SIZE)
            return strength * space[name]

        rows = []
        for film in self.films:
            row = 0.6 * self.numbers.standard_normal(LATENT_SIZE) + place(f"director {film.director}", 0.8)
            row += sum((place(f"genre {genre}", 0.7) for genre in film.genres), np.zeros(LATENT_SIZE))
            row += place(f"decade {film.year // 10}", 0.4)
            rows.append(row + (place(f"series {film.series}", 1.2) if film.series else 0))
        return np.stack(rows)


def _relatedness(films: Sequence[Film]) -> np.ndarray:
    """``[n_films, n_films]``: how much having seen the row's film draws to the column's."""
    genres = np.array([[genre in film.genres for genre in GENRES] for film in films], dtype=float)
    shared = genres @ genres.T
    either = genres.sum(axis=1)[:, None] + genres.sum(axis=1) - shared
    director = np.array([film.director for film in films])
    series = np.array([film.series for film in films])
    part = np.array([film.part for film in films])
    year = np.array([film.year for film in films])
    same_series = (series[:, None] == series) & (series != "")
    follows = part[:, None] + 1 == part
    related = 1.5 * (shared / either) + np.where(director[:, None] == director, 1.5, 0.0)
    related += np.where(same_series, np.where(follows, 4.0, 2.0), 0.0)
    related -= 0.02 * np.abs(year[:, None] - year)
    np.fill_diagonal(related, 0.0)
    return cast(np.ndarray, related)


def _unit(vectors: np.ndarray) -> np.ndarray:
    unit: np.ndarray = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    return unit


def _moved(vectors: np.ndarray, towards: np.ndarray, cosine: float | np.ndarray) -> np.ndarray:
    """Unit vectors moved so that they lie about at that cosine from another."""
    return _unit(cosine * towards + np.sqrt(1 - cosine**2) * vectors)


def _mixed(latents: np.ndarray, mixing: np.ndarray) -> np.ndarray:
    """Unit vectors of few dimensions as vectors ``[n, 64]`` of about unit coordinates."""
    mixed: np.ndarray = latents @ mixing
    return mixed


def _softmax(logits: np.ndarray) -> np.ndarray:
    exponentials = np.exp(logits - logits.max())
    probabilities: np.ndarray = exponentials / exponentials.sum()
    return probabilities
