"""A recommender without a model: quick, deterministic, and free of torch. And a store of a dozen films."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import polars as pl
from textual.pilot import Pilot

from llara_app import locations
from llara_app.catalogue import Catalogue, Item
from llara_app.datasets.source import SourceData
from llara_app.engine import ModelKey, Neighbourhood, Request
from llara_app.engine.requests import Tell
from llara_app.errors import LlaraError
from llara_app.explain import Neighbours
from llara_app.files import write_whole
from llara_app.models.manifest import MANIFEST_FILE, DatasetPart, LLMPart, Manifest, catalogue_lines
from llara_app.prompts import HybridPrompt, PromptMode, build_prompt, find_template
from llara_app.ranking.ranker import CandidateScores
from llara_app.recommendation import RankedItem, Recommendation
from llara_app.store import Store
from llara_app.tui.app import LlaraTui
from llara_app.tui.core import Core
from llara_app.tui.lanes import Lane

Answer = TypeVar("Answer")

FILMS = [
    ("The Godfather", 1972, "Crime"),
    ("The Godfather Part II", 1974, "Crime"),
    ("Goodfellas", 1990, "Crime"),
    ("Heat", 1995, "Crime"),
    ("Amélie", 2001, "Romance"),
    ("In the Mood for Love", 2000, "Romance"),
    ("Before Sunrise", 1995, "Romance"),
    ("Casablanca", 1942, "Romance"),
    ("Alien", 1979, "Science fiction"),
    ("Blade Runner", 1982, "Science fiction"),
    ("Solaris", 1972, "Science fiction"),
    ("2001: A Space Odyssey", 1968, "Science fiction"),
    ("Stalker", 1979, "Science fiction"),
    ("Seven Samurai", 1954, "Adventure"),
    ("Raiders of the Lost Ark", 1981, "Adventure"),
    ("The Wages of Fear", 1953, "Adventure"),
    ("Playtime", 1967, "Comedy"),
    ("Some Like It Hot", 1959, "Comedy"),
    ("The General", 1926, "Comedy"),
    ("Duck Soup", 1933, "Comedy"),
]
DAY = 86_400
FIRST_DAY = 1_700_000_000


def films_source(num_users: int = 24) -> SourceData:
    """Users who see films of one genre after the other."""
    rows = []
    for user in range(num_users):
        for step in range(5 + user % 7):
            film = (user * 3 + step * (1 + user % 2)) % len(FILMS)
            rows.append((f"user-{user:03d}", f"f{film}", FIRST_DAY + (user * 20 + step) * DAY))
    return SourceData(
        domain="movie",
        items=pl.DataFrame(
            {
                "item_id": [f"f{i}" for i in range(len(FILMS))],
                "title": [f"{title} ({year})" for title, year, _ in FILMS],
                "metadata": [json.dumps({"year": year, "genres": [genre]}) for _, year, genre in FILMS],
            }
        ),
        interactions=pl.DataFrame(rows, schema=["user_id", "item_id", "time"], orient="row"),
    )


def make_store(path: Path, name: str = "films") -> Store:
    store = Store(path)
    store.import_dataset(name, films_source())
    return store


def make_manifest(catalogue: Catalogue, **changes: Any) -> Manifest:
    fields: dict[str, Any] = {
        "created": "2026-01-01T00:00:00+00:00",
        "dataset": DatasetPart(
            name=catalogue.dataset,
            domain=catalogue.domain,
            hash="0" * 64,
            catalogue_hash=catalogue.hash,
            protocol="paper",
            num_users=24,
            num_items=len(catalogue),
            num_interactions=190,
        ),
        "encoder": "sasrec",
        "item_size": 64,
        "llm": LLMPart(name="nano", architecture="llama", vocabulary_size=4096, hidden_size=128),
        "template": find_template(catalogue.domain, fallback=True),
        "curriculum": "linear",
        "modes": (PromptMode.TEXT, PromptMode.HYBRID),
        "num_candidates": 20,
        "max_history": 10,
        "seed": 0,
        "training": {"total_steps": 300},
    }
    return Manifest(**{**fields, **changes})


def make_bundle(store: Store, name: str = "films-nano", dataset: str = "films", **changes: Any) -> Path:
    """A folder that lists as a bundle; only the fake engine can load it."""
    catalogue = store.catalogue(dataset)
    folder = locations.bundles() / name
    write_whole(folder / MANIFEST_FILE, make_manifest(catalogue, **changes).model_dump_json())
    write_whole(folder / "catalogue.jsonl", catalogue_lines(catalogue))
    return folder


class FakeTokenizer:
    """One token a word."""

    prefix_ids = (0,)

    def __init__(self, num_items: int) -> None:
        self.num_items = num_items

    def encode_pieces(self, pieces: Sequence[Any]) -> list[int]:
        return [0] * sum(len(getattr(piece, "text", "token").split()) for piece in pieces)


class FakeRanker:
    """Likes items of the genre that the history ends with; less surely so without behaviour tokens."""

    engine = "torch"

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue
        self.prompt_tokenizer = FakeTokenizer(len(catalogue))

    @property
    def num_behaviour(self) -> int:
        return self.prompt_tokenizer.num_items

    def score(self, prompts: Sequence[HybridPrompt], mode: PromptMode) -> list[CandidateScores]:
        return [CandidateScores(self._score(prompt, mode)) for prompt in prompts]

    def generate(self, prompts: Sequence[HybridPrompt], mode: PromptMode) -> list[str]:
        return [prompt.candidates[0].title for prompt in prompts]

    def _score(self, prompt: HybridPrompt, mode: PromptMode) -> npt.NDArray[np.float64]:
        sure = {PromptMode.TEXT: 0.6, PromptMode.BEHAVIOUR: 0.9, PromptMode.INDEX: 0.1, PromptMode.HYBRID: 1.2}[mode]
        return np.array([sure * liking(prompt.history, item) - item.index % 7 / 10 for item in prompt.candidates])


def liking(history: Sequence[Item], item: Item) -> float:
    """How well an item fits a history: recent items of its genre count most."""
    value = 0.0
    for age, seen in enumerate(reversed(history)):
        value += (seen.metadata["genres"] == item.metadata["genres"]) * 2.0 / (1 + age)
        value -= 0.1 * abs(seen.index - item.index) / (1 + age)
    return value


class FakeRecommender:
    """What requests need of a recommender."""

    num_trained = 20

    def __init__(self, manifest: Manifest, catalogue: Catalogue) -> None:
        self.manifest = manifest
        self.catalogue = catalogue
        self.ranker = FakeRanker(catalogue)

    def encoder_scores(self, history: Sequence[Item]) -> npt.NDArray[np.float32]:
        return np.array([liking(history[-2:], item) for item in self.catalogue], dtype=np.float32)

    def propose(self, history: Sequence[Item], count: int = 20) -> list[Item]:
        seen = {item.index for item in history}
        order = np.argsort(-self.encoder_scores(history), kind="stable").tolist()
        return [self.catalogue[index] for index in order if index not in seen][:count]

    def prompt(self, history: Sequence[Item], candidates: Sequence[Item]) -> HybridPrompt:
        shown = sorted(candidates, key=lambda item: item.index)
        return build_prompt(self.manifest.template, history[-self.manifest.max_history :], shown)

    def recommend(self, history: Sequence[Item], *, candidates: Sequence[Item], mode: PromptMode) -> Recommendation:
        prompt = self.prompt(history, candidates)
        scores = self.ranker.score([prompt], mode)[0]
        ranks = np.argsort(np.argsort(-self.encoder_scores(history), kind="stable"), kind="stable") + 1
        order = np.argsort(-scores.log_likelihoods, kind="stable")
        items = tuple(
            RankedItem(
                prompt.candidates[place],
                float(scores.probabilities[place]),
                float(scores.log_likelihoods[place]),
                int(ranks[prompt.candidates[place].index]),
            )
            for place in order.tolist()
        )
        return Recommendation(
            prompt.history, items, prompt, self.ranker.num_behaviour, mode, "torch", 12.0, self.num_trained
        )


class FakeEngine:
    """Answers requests on a thread of its own; `gate` can hold it back, `failure` makes it fail."""

    def __init__(self) -> None:
        self.lane = Lane("fake engine")
        self.asked: list[Any] = []
        self.gate = threading.Event()
        self.gate.set()
        self.failure: LlaraError | None = None
        self.closed = 0
        self.tell: Tell = lambda text, fraction=None: None

    def submit(self, request: Request[Answer], progress: Tell | None = None) -> Future[Answer]:
        return self.lane.submit(self._run, request, progress)

    def close(self) -> None:
        self.closed += 1

    def get(self, key: ModelKey) -> Any:
        manifest = Manifest.read(key.folder)
        lines = (key.folder / "catalogue.jsonl").read_text().splitlines()
        items = tuple(Item(index, **json.loads(line)) for index, line in enumerate(lines))
        return FakeRecommender(manifest, Catalogue(manifest.dataset.name, manifest.dataset.domain, items))

    def _run(self, request: Any, progress: Tell | None) -> Any:
        self.asked.append(request)
        self.tell = progress or (lambda text, fraction=None: None)
        self.tell("loading")
        self.gate.wait()
        if self.failure is not None:
            raise self.failure
        if isinstance(request, Neighbourhood):
            near = [item for item in self.get(request.key).catalogue if item.index != request.item.index][:5]
            alike = tuple((item, 0.9 - 0.1 * place) for place, item in enumerate(near))
            return Neighbours(request.item, alike, (("crime", 0.41), ("family", 0.38), ("night", 0.2)))
        return request.run(self)


class FakeImporter(FakeEngine):
    """Runs imports in this process."""


def make_app(db: Path, engine: FakeEngine | None = None) -> LlaraTui:
    engine = engine or FakeEngine()
    return LlaraTui(Core(db, engine=lambda: engine, importer=FakeImporter))


async def until(pilot: Pilot[None], condition: Callable[[], bool], seconds: float = 120) -> None:
    """Wait for a condition, generously: the machine may be slow."""
    deadline = time.monotonic() + seconds
    while True:
        await pilot.pause()
        if condition():
            await pilot.pause()
            return
        assert time.monotonic() < deadline, "waited in vain"
        await asyncio.sleep(0.01)


def seen(app: LlaraTui) -> str:
    """What stands on the screen, borders and all."""
    return "\n".join("".join(part.text for part in line) for line in app.screen._compositor.render_strips())


async def predicted(pilot: Pilot[None]) -> None:
    """Wait until the model has said something about what is open."""
    app = pilot.app
    assert isinstance(app, LlaraTui)
    await until(pilot, lambda: app.workspace.prediction is not None)
