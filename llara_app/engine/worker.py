"""The process that holds the models and answers requests, one after the other.

Run as ``python -m llara_app.engine.worker OPTIONS`` by :class:`~llara_app.engine.process.EngineProcess`; the options
are the llama.cpp engine's, in JSON. It ends when its stdin is closed: however the front end ends, no model is left
behind in memory.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import traceback
from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, BinaryIO

from llara_app.engine.requests import ModelKey, Tell
from llara_app.engine.wire import Ask, Cancel, Done, Failed, Progress, receive, send
from llara_app.errors import LlaraError

if TYPE_CHECKING:
    from llara_app.recommend import Recommender

KEPT_MODELS = 3
"""Models that stay in memory; the one that was not asked for longest makes way."""


class CancelledError(Exception):
    """The front end does not want the answer any more."""


class LoadedModels:
    """Models by key, loaded when first asked for.

    Args:
        engine_options: of the llama.cpp engine, as :meth:`Recommender.load` takes them.
    """

    def __init__(self, engine_options: Mapping[str, Any]) -> None:
        self.engine_options = engine_options
        self.tell: Tell = lambda text, fraction=None: None
        self._models: OrderedDict[ModelKey, Recommender] = OrderedDict()

    def get(self, key: ModelKey) -> Recommender:
        model = self._models.get(key)
        if model is None:
            while len(self._models) >= KEPT_MODELS:
                self._models.popitem(last=False)
            self.tell("starting the engine")
            from llara_app.recommend import Recommender

            model = self._models[key] = Recommender.load(
                key.folder, engine=key.engine, progress=self.tell, **self.engine_options
            )
        self._models.move_to_end(key)
        return model


class Worker:
    """Reads requests from one pipe and writes answers into another."""

    def __init__(self, incoming: BinaryIO, outgoing: BinaryIO, engine_options: Mapping[str, Any]) -> None:
        self._incoming = incoming
        self._outgoing = outgoing
        self._waiting: queue.SimpleQueue[Ask] = queue.SimpleQueue()
        self._cancelled: set[int] = set()
        self._models = LoadedModels(engine_options)

    def run(self) -> None:
        threading.Thread(target=self._listen, name="listen", daemon=True).start()
        while True:
            ask = self._waiting.get()
            try:
                self._answer(ask)
            finally:
                self._cancelled.discard(ask.number)

    def _listen(self) -> None:
        try:
            while True:
                message = receive(self._incoming)
                if isinstance(message, Cancel):
                    self._cancelled.add(message.number)
                else:
                    self._waiting.put(message)
        except EOFError:
            # The front end is gone. A model that is being loaded, or at work, cannot be asked to stop.
            os._exit(0)

    def _answer(self, ask: Ask) -> None:
        def tell(text: str, fraction: float | None = None) -> None:
            if ask.number in self._cancelled:
                raise CancelledError
            send(self._outgoing, Progress(ask.number, text, fraction))

        self._models.tell = tell
        try:
            if ask.number in self._cancelled:
                raise CancelledError
            answer = ask.request.run(self._models)
            message: object = Done(ask.number, answer)
        except CancelledError:
            return
        except LlaraError as error:
            message = Failed(ask.number, error)
        except Exception as error:
            message = Failed(ask.number, _unforeseen(error), traceback.format_exc())
        send(self._outgoing, message)


def _unforeseen(error: Exception) -> LlaraError:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    # torch says it in several ways: OutOfMemoryError on a GPU, a RuntimeError about an allocator on a CPU.
    if isinstance(error, MemoryError) or "out of memory" in str(error) or "can't allocate memory" in str(error):
        return LlaraError(
            "Not enough memory for this model", reason, "Close other programs, or use a smaller or quantized model."
        )
    return LlaraError("The model failed", f"{type(error).__name__}: {reason}", "The details name the place.")


def main() -> None:
    # stdout carries the answers; whatever libraries print must not get among them.
    outgoing = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    Worker(sys.stdin.buffer, outgoing, json.loads(sys.argv[1])).run()


if __name__ == "__main__":
    main()
