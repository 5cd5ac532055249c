"""Fixtures shared by all tests; nothing here imports torch."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# Tiny models gain nothing from threads, and threads that wait for a busy core cost a lot. This must be set before
# torch is first imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["HF_HUB_OFFLINE"] = "1"
# Matplotlib keeps a list of fonts, which takes seconds to make: in one place for all runs, outside the user's home.
os.environ["MPLCONFIGDIR"] = str(Path(tempfile.gettempdir()) / "llara-app-tests-matplotlib")

# A shell ignores interrupts for what it starts in the background, and every process inherits that; some tests
# interrupt processes that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

# A machine that is busy is no failure.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

SHARED = Path(__file__).resolve().parent.parent.parent / "shared"


@pytest.fixture(scope="session", autouse=True)
def session_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Fixtures that outlive a test have a home too."""
    with pytest.MonkeyPatch.context() as patch:
        home = tmp_path_factory.mktemp("session-home")
        patch.setenv("LLARA_HOME", str(home))
        yield home


@pytest.fixture(autouse=True)
def llara_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Every test has a home of its own: the user's is never touched."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("LLARA_HOME", str(home))
    yield home


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets beside the checkout."""
    if not (SHARED / "data").is_dir():
        pytest.skip("the real data sets (../shared/data) are not on this machine")
    return SHARED / "data"


@pytest.fixture(scope="session")
def shared_golden() -> Path:
    """The folder of reference outputs beside the checkout."""
    if not (SHARED / "golden").is_dir():
        pytest.skip("the reference outputs (../shared/golden) are not on this machine")
    return SHARED / "golden"
