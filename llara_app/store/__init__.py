"""Everything kept: one SQLite file behind one gateway, :class:`Store`."""

from llara_app.store.gateway import Store
from llara_app.store.records import DatasetInfo, Interaction, UserInfo, UserMatch
from llara_app.store.user_search import UserSearch

__all__ = ["DatasetInfo", "Interaction", "Store", "UserInfo", "UserMatch", "UserSearch"]
