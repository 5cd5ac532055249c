"""Models in a process of their own: a screen that asks them never waits, and outlives them.

:mod:`~llara_app.engine.requests` are the questions, :mod:`~llara_app.engine.process` asks them from any thread,
:mod:`~llara_app.engine.worker` answers them on the other side. Only the worker imports torch.
"""

from llara_app.engine.process import EngineProcess
from llara_app.engine.requests import (
    Compare,
    Explain,
    LoadModel,
    ModelInfo,
    ModelKey,
    Neighbourhood,
    Predict,
    Prediction,
    Request,
    System,
)

__all__ = [
    "Compare",
    "EngineProcess",
    "Explain",
    "LoadModel",
    "ModelInfo",
    "ModelKey",
    "Neighbourhood",
    "Predict",
    "Prediction",
    "Request",
    "System",
]
