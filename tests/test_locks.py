"""One process at a time, and nobody taken for one who works because it asked."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from llara_app.errors import LlaraError
from llara_app.locks import alone, alone_or_not, held, lock_on


def test_the_second_is_refused_while_the_first_works() -> None:
    refusal = LlaraError("Somebody is at it")
    with alone("work"):
        assert held("work")
        with pytest.raises(LlaraError, match="Somebody"), alone_or_not("work", refusal):
            raise AssertionError("it must not begin")
    assert not held("work")
    with alone_or_not("work", refusal):
        assert held("work")


def test_asking_whether_it_is_held_refuses_nobody() -> None:
    asking = threading.Event()

    def ask() -> None:
        with alone("work"):
            asking.set()
            time.sleep(0.1)

    asker = threading.Thread(target=ask)
    asker.start()
    asking.wait()
    with alone_or_not("work", LlaraError("refused")):
        asker.join()


def test_a_place_has_one_lock_however_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert lock_on("training", Path("bundle")) == lock_on("training", tmp_path / "bundle")
    assert lock_on("training", Path("bundle")) != lock_on("export", Path("bundle"))
