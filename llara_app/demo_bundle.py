"""The trained demo that comes with the package: something to look at before anything was trained.

It was made by this command; its manifest and its log tell the rest::

    torchrun --nproc-per-node 2 -m llara_app train --dataset demo --curriculum direct --alignment-steps 600 \\
        --epochs 5 --max-steps 4500 --thinning-steps 4000
"""

from __future__ import annotations

import shutil
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from llara_app import locations
from llara_app.files import whole_folder
from llara_app.models.manifest import MANIFEST_FILE

if TYPE_CHECKING:
    from llara_app.store import Store

NAME = "demo"
"""Of the dataset and of the bundle."""


def shipped_bundle() -> Path:
    """The packaged bundle's folder; read-only, so it is copied before it is used."""
    return Path(str(resources.files("llara_app.models") / "demo_bundle"))


def install_bundle() -> Path:
    """Put the shipped bundle among the kept ones; one that lies there already is left as it is."""
    folder = locations.bundles() / NAME
    if not (folder / MANIFEST_FILE).is_file():
        with whole_folder(folder) as scratch:
            shutil.copytree(shipped_bundle(), scratch, dirs_exist_ok=True)
    return folder


def install_demo(store: Store) -> Path:
    """The demo dataset in the store and the shipped bundle among the kept ones; returns the bundle's folder."""
    from llara_app.datasets.sources import ensure_dataset

    ensure_dataset(store, NAME)
    return install_bundle()
