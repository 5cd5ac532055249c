"""Models in another process: answers, progress, failures, cancelling, and a process that dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest

from llara_app.compare import Comparison
from llara_app.engine import Compare, EngineProcess, Explain, LoadModel, ModelKey, Neighbourhood, Predict, System
from llara_app.engine.requests import Models
from llara_app.engine.worker import LoadedModels
from llara_app.errors import BundleError, LlaraError, UsageError
from llara_app.prompts import PromptMode
from llara_app.ranking.gguf_file import find_gguf
from tests.small_world import World, make_world

WAIT = 240


@dataclass(frozen=True)
class Echo:
    text: str

    def run(self, models: Models) -> str:
        models.tell(f"saying {self.text}", 0.5)
        return self.text


@dataclass(frozen=True)
class Fail:
    error: Exception

    def run(self, models: Models) -> None:
        raise self.error


@dataclass(frozen=True)
class WaitFor:
    path: Path

    def run(self, models: Models) -> str:
        while not self.path.exists():
            time.sleep(0.01)
        return "done"


@dataclass(frozen=True)
class Touch:
    path: Path

    def run(self, models: Models) -> None:
        self.path.touch()


@dataclass(frozen=True)
class LoadOptions:
    """Asks for the file that the options name, in a folder that has none."""

    folder: Path

    def run(self, models: Models) -> None:
        find_gguf(self.folder, **cast(LoadedModels, models).engine_options)


@pytest.fixture
def engine() -> Iterator[EngineProcess]:
    engine = EngineProcess()
    yield engine
    engine.close()


def test_answers_and_progress(engine: EngineProcess) -> None:
    told: list[tuple[str, float | None]] = []
    answer = engine.submit(Echo("hello"), lambda text, fraction=None: told.append((text, fraction)))
    assert answer.result(WAIT) == "hello"
    assert told == [("saying hello", 0.5)]


def test_errors_keep_their_kind_and_unforeseen_ones_their_traceback(engine: EngineProcess) -> None:
    with pytest.raises(UsageError) as foreseen:
        engine.submit(Fail(UsageError("No", "where", "do this"))).result(WAIT)
    assert (foreseen.value.title, foreseen.value.hint) == ("No", "do this")
    with pytest.raises(LlaraError) as unforeseen:
        engine.submit(Fail(ValueError("odd"))).result(WAIT)
    assert "odd" in unforeseen.value.message
    assert "Traceback" in unforeseen.value.__notes__[0]
    with pytest.raises(LlaraError, match="memory"):
        engine.submit(Fail(MemoryError("too much"))).result(WAIT)


def test_cancelled_requests_are_never_begun(engine: EngineProcess, tmp_path: Path) -> None:
    gate, touched = tmp_path / "gate", tmp_path / "touched"
    busy = engine.submit(WaitFor(gate))
    superseded = engine.submit(Touch(touched))
    last = engine.submit(Echo("last"))
    assert superseded.cancel()
    # The message that cancels is on its way before the worker gets to the request.
    time.sleep(0.2)
    gate.touch()
    assert (busy.result(WAIT), last.result(WAIT)) == ("done", "last")
    assert not touched.exists()


def test_a_process_that_dies_is_said_and_replaced(engine: EngineProcess, tmp_path: Path) -> None:
    assert engine.submit(Echo("one")).result(WAIT) == "one"
    waiting = engine.submit(WaitFor(tmp_path / "never"))
    assert engine.pid is not None
    os.kill(engine.pid, signal.SIGKILL)
    with pytest.raises(LlaraError, match="memory"):
        waiting.result(WAIT)
    assert engine.submit(Echo("two")).result(WAIT) == "two"


def test_options_of_the_engine_reach_it(tmp_path: Path) -> None:
    engine = EngineProcess({"quantization": "Q6_K"})
    (tmp_path / "gguf").mkdir()
    try:
        with pytest.raises(LlaraError) as refused:
            engine.submit(LoadOptions(tmp_path)).result(WAIT)
    finally:
        engine.close()
    assert "Q6_K" in str(refused.value)


def test_closing_does_not_wait(tmp_path: Path) -> None:
    engine = EngineProcess()
    waiting = engine.submit(WaitFor(tmp_path / "never"))
    engine.close()
    assert waiting.cancelled()


def test_the_worker_ends_with_its_front_end(tmp_path: Path) -> None:
    script = (
        "from llara_app.engine import EngineProcess\n"
        "from tests.engine.test_engine_process import Echo\n"
        "engine = EngineProcess()\n"
        "engine.submit(Echo('x')).result(200)\n"
        "print(engine.pid, flush=True)\n"
        "import os; os._exit(0)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=WAIT, check=True)
    pid = int(done.stdout)
    ended = threading.Event()
    for _ in range(2000):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            ended.set()
            break
        time.sleep(0.05)
    assert ended.is_set()


def test_front_end_imports_no_torch() -> None:
    script = (
        "import llara_app.engine, sys; print([m for m in ('torch', 'transformers', 'polars') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=WAIT, check=True)
    assert done.stdout.strip() == "[]"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    from train.finetune import finetune, prepare_run

    world = make_world(tmp_path_factory.mktemp("world"))
    spec = world.spec(max_steps=2)
    prepare_run(world.store, spec, world.folder / "bundle")
    finetune(world.store, spec, world.folder / "bundle", device="cpu")
    return world


def test_the_questions_a_screen_asks(engine: EngineProcess, world: World, tmp_path: Path) -> None:
    key = ModelKey(world.folder / "bundle")
    told: list[str] = []
    info = engine.submit(LoadModel(key), lambda text, fraction=None: told.append(text)).result(WAIT)
    assert info.mode is PromptMode.HYBRID
    assert told[0] == "starting the engine" and "adapter" in told
    catalogue = world.store.catalogue("small")
    history = tuple(catalogue[i] for i in (3, 4, 6))
    truth = catalogue[20]
    prediction = engine.submit(Predict(key, history, num_candidates=6, extra=truth)).result(WAIT)
    ranked = [each.item for each in prediction.recommendation.items]
    assert len(ranked) == 6 and truth in ranked
    assert prediction.tokens is not None and prediction.tokens.behaviour == 9
    explanation = engine.submit(Explain(key, history, tuple(ranked), target=truth)).result(WAIT)
    assert (explanation.target, len(explanation.influences)) == (truth, 3)
    near = engine.submit(Neighbourhood(key, history[0])).result(WAIT)
    assert near is not None and near.words
    systems = (System(key, None, "encoder"), System(key, PromptMode.TEXT, "text"))
    comparison: Comparison = engine.submit(Compare(systems, history, tuple(ranked))).result(WAIT)
    assert [column.label for column in comparison.columns] == ["encoder", "text"]
    with pytest.raises(BundleError):
        engine.submit(LoadModel(ModelKey(tmp_path))).result(WAIT)
