"""What an embedding space is."""

from __future__ import annotations

import re
from dataclasses import dataclass

from feedmill.contract import VECTORS_COLLECTION_PREFIX
from feedmill.errors import ModelError

ACTIVE = "active"
"""The ``_id`` of the pointer beside the spaces' documents; no space may have this name."""

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,59}")


@dataclass(frozen=True, slots=True)
class Space:
    """An embedding space. Only vectors of one model at one revision may share it."""

    name: str
    model: str
    revision: str
    dimensions: int

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name) or self.name == ACTIVE:
            raise ModelError(f"space {self.name!r}: expected 1 to 60 of a-z, 0-9 and '-', and not 'active'")
        if self.dimensions < 1:
            raise ModelError(f"space {self.name}: expected at least 1 dimension, got {self.dimensions}")

    @property
    def collection(self) -> str:
        return VECTORS_COLLECTION_PREFIX + self.name
