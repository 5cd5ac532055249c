"""One module per source of data, all yielding the same :class:`SourceData`, and the splits made from it."""

from llara_app.datasets.source import SourceData
from llara_app.datasets.sources import SOURCES, ensure_dataset

__all__ = ["SOURCES", "SourceData", "ensure_dataset"]
