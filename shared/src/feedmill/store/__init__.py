"""The database behind one small module: Motor or PyMongo's own asyncio client, chosen by a setting."""

from feedmill.store.client import Document, Store
from feedmill.store.feed import Change, ChangeFeed, HistoryLost, StreamUnsupported
from feedmill.store.writes import Write, WriteReport

__all__ = [
    "Change",
    "ChangeFeed",
    "Document",
    "HistoryLost",
    "Store",
    "StreamUnsupported",
    "Write",
    "WriteReport",
]
