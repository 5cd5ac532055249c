"""Several processes, as ``accelerate launch`` or ``torchrun`` start them, for one training."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeVar, cast

Made = TypeVar("Made")


def is_main_process() -> bool:
    """Whether this process speaks for all: it prints, and keeps what is kept once."""
    return int(os.environ.get("RANK", "0")) == 0


def made_by_main_process(make: Callable[[], Made], device: str | None = None) -> Made:
    """What `make` gives in the main process, handed to all; the others do not call it.

    Args:
        device: where the training will run; the processes find each other by what fits it.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return make()
    # Imported where they are needed: a wrong option is to be answered at once.
    from accelerate import PartialState
    from accelerate.utils import broadcast_object_list

    from llara_app.models.devices import choose_device

    state = PartialState(cpu=choose_device(device).type == "cpu")
    made = [make() if state.is_main_process else None]
    broadcast_object_list(made)
    return cast(Made, made[0])
