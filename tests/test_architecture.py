"""Who may import whom, so that the rooms stay apart."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FRONT_ENDS = ("llara_app.cli", "llara_app.tui", "demo", "train")
CORE = [
    path
    for path in sorted((ROOT / "llara_app").rglob("*.py"))
    if path.relative_to(ROOT).parts[1] not in ("cli", "tui", "__main__.py")
]


def imported(path: Path) -> set[str]:
    """All modules that a file imports anywhere, function bodies included."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def belongs(module: str, room: str) -> bool:
    return module == room or module.startswith(f"{room}.")


@pytest.mark.parametrize("path", CORE, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_the_core_imports_no_front_end_and_no_training(path: Path) -> None:
    wrong = {name for name in imported(path) for room in FRONT_ENDS if belongs(name, room)}
    assert not wrong


@pytest.mark.parametrize("room", ["store", "datasets", "prompts"])
def test_data_rooms_do_not_load_torch(room: str) -> None:
    """Not even through what they import."""
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in sorted((ROOT / "llara_app" / room).rglob("*.py"))
    ]
    program = (
        "import sys, importlib; [importlib.import_module(name) for name in sys.argv[1:]];"
        "print([name for name in ('torch', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program, *modules], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "path", sorted((ROOT / "llara_app" / "tui").rglob("*.py")), ids=lambda path: path.relative_to(ROOT).as_posix()
)
def test_widgets_know_no_sql_and_no_torch(path: Path) -> None:
    heavy = (
        "torch",
        "transformers",
        "sqlite3",
        "sqlite_utils",
        "llara_app.models.bundle",
        "llara_app.store.database",
    )
    assert not {name for name in imported(path) for room in heavy if belongs(name, room)}


@pytest.mark.parametrize("wanted, waiting", [({}, "1000"), ({"OMP_WAIT_POLICY": "ACTIVE"}, None)])
@pytest.mark.parametrize("package", ["llara_app", "train", "benchmarks"])
def test_how_threads_wait_is_settled_before_torch_is_loaded(
    package: str, wanted: dict[str, str], waiting: str | None
) -> None:
    program = f"import {package}, os, sys; print('torch' in sys.modules, os.environ.get('GOMP_SPINCOUNT'))"
    clean = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=clean | wanted, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False", str(waiting)]


def test_nothing_is_pickled() -> None:
    """No file of ours is a pickle; published ones pass through our own readers.

    A front end and the worker process that it starts exchange messages as multiprocessing does, through a pipe.
    """
    exceptions = {
        "llara_app/datasets/safe_pickle.py",
        "llara_app/encoders/inert_pickle.py",
        "llara_app/engine/wire.py",
    }
    for path in [p for room in ("llara_app", "train", "demo") for p in (ROOT / room).rglob("*.py")]:
        name = path.relative_to(ROOT).as_posix()
        if name in exceptions:
            continue
        assert not {m for m in imported(path) if belongs(m, "pickle") or belongs(m, "joblib")}, name
        calls = {
            f"{node.func.value.id}.{node.func.attr}"
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and isinstance(node.func.value, ast.Name)
        }
        assert not calls & {"torch.load", "torch.save", "pd.read_pickle", "np.load"}, name
