"""Everything kept: one SQLite file behind one gateway, :class:`Store`."""

from llara_app.store.gateway import Store
from llara_app.store.records import DatasetInfo, Interaction, UserInfo

__all__ = ["DatasetInfo", "Interaction", "Store", "UserInfo"]
