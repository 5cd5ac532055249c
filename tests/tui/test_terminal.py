"""The app in a real terminal, through tmux: start, search, switch modes, edit, quit."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from llara_app.store import Store
from tests.tui.fakes import make_bundle

WAIT = 240

APP = """
from pathlib import Path
from tests.tui.fakes import make_app
make_app(Path({db!r})).run()
print("ended well")
"""


class Terminal:
    """A tmux session of its own, with its own server."""

    def __init__(self, folder: Path, width: int, height: int, command: list[str]) -> None:
        self._socket = str(folder / "tmux.sock")
        environment = [item for name in ("LLARA_HOME", "PYTHONPATH") for item in ("-e", f"{name}={os.environ[name]}")]
        size = ["-x", str(width), "-y", str(height)]
        self._tmux("-f", os.devnull, "new-session", "-d", *size, *environment, *command)
        self._tmux("set-option", "-g", "remain-on-exit", "on")

    def press(self, *keys: str) -> None:
        self._tmux("send-keys", *keys)

    def screen(self) -> str:
        return self._tmux("capture-pane", "-p")

    def until(self, condition: Callable[[str], bool]) -> str:
        deadline = time.monotonic() + WAIT
        while not condition(shown := self.screen()):
            assert time.monotonic() < deadline, f"waited in vain; the screen shows\n{shown}"
            time.sleep(0.1)
        return shown

    def close(self) -> None:
        subprocess.run(["tmux", "-S", self._socket, "kill-server"], capture_output=True, check=False)

    def _tmux(self, *arguments: str) -> str:
        done = subprocess.run(["tmux", "-S", self._socket, *arguments], capture_output=True, text=True, check=True)
        return done.stdout


@pytest.fixture
def terminal(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    if shutil.which("tmux") is None:
        pytest.skip("tmux is not installed")
    make_bundle(store)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[2]))
    script = tmp_path / "app.py"
    script.write_text(APP.format(db=str(store.path)))
    terminal = Terminal(tmp_path, 80, 24, [sys.executable, str(script)])
    yield terminal
    terminal.close()


@pytest.mark.slow
def test_a_session_from_start_to_quit(terminal: Terminal, store: Store) -> None:
    shown = terminal.until(lambda screen: "user-000" in screen and "⟨◆" in screen and "%" in screen)
    assert "LLaRA" in shown and "hybrid" in shown
    terminal.press("m")
    terminal.until(lambda screen: "⟨◆" not in screen and "%" in screen)
    # In one burst, as somebody types who knows the way.
    terminal.press("/", "user-007", "Enter", "h", "d")
    terminal.until(lambda screen: "user-007 what-if" in screen)
    assert store.is_custom("films", "user-007 what-if")
    terminal.press("z")
    terminal.until(lambda screen: "what-if" not in screen)
    terminal.press("q")
    terminal.until(lambda screen: "ended well" in screen)
