"""Bulk writes as pure functions: which go together, which can't be encoded, what became of each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import bson
from pymongo import UpdateOne

from feedmill.errors import MessageError, Reject
from feedmill.ids import PostId
from feedmill.store import faults

MAX_DOCUMENT_BYTES = 16 * 1024 * 1024
"""The server's limit for one document: https://www.mongodb.com/docs/manual/reference/limits/"""


@dataclass(frozen=True, slots=True)
class Write:
    """One update of one document."""

    id: PostId
    update: Mapping[str, Any]
    """Update operators, such as ``{"$set": {…}}``. Setting by id keeps a repeated write harmless."""
    upsert: bool = False
    """Whether to make the document where it does not exist."""
    where: Mapping[str, Any] = field(default_factory=dict)
    """What else has to hold for the document as it is; where it does not, nothing is written, without an error."""


@dataclass(frozen=True, slots=True)
class WriteReport:
    """What became of several writes."""

    errors: list[MessageError | None]
    """One per write, in order; None: acknowledged."""
    missing: int
    """Acknowledged writes that found no document, or none for which ``where`` held, and made none."""


def waves(writes: Sequence[Write]) -> list[list[int]]:
    """Positions of ``writes`` in groups to be sent one after another, no id twice in a group.

    The server may carry out an unordered bulk write in any order: two writes to one id keep theirs by going apart.
    """
    seen: dict[PostId, int] = {}
    groups: list[list[int]] = []
    for position, write in enumerate(writes):
        turn = seen.get(write.id, 0)
        seen[write.id] = turn + 1
        if turn == len(groups):
            groups.append([])
        groups[turn].append(position)
    return groups


def operations(writes: Iterable[Write]) -> list[UpdateOne]:
    return [UpdateOne({**write.where, "_id": write.id}, write.update, upsert=write.upsert) for write in writes]


def encoding_fault(write: Write) -> Reject | None:
    """Why ``write`` can't be sent at all, if so."""
    try:
        encoded = bson.encode({"q": {**write.where, "_id": write.id}, "u": write.update})
    except faults.ENCODING_ERRORS as error:
        return faults.encoding_error(type(error).__name__)
    if len(encoded) > MAX_DOCUMENT_BYTES:
        return faults.encoding_error("DocumentTooLarge")
    return None
