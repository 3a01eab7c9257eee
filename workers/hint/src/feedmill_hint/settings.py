"""The hint worker's own settings."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from feedmill.settings import Group, Seconds


class FollowSettings(Group):
    """How the index in memory follows the stored vectors."""

    follow: Literal["auto", "stream", "poll"] = Field(
        "auto", description="stream, poll, or auto: the database's change stream where it has one, else polling"
    )
    space_poll_seconds: Seconds = Field(2.0, description="how often the pointer to the active space is read")
    index_poll_seconds: Seconds = Field(2.0, description="polling: how often new and changed vectors are asked for")
    index_overlap_seconds: Seconds = Field(
        10.0, description="polling: how far each poll reaches back, for writes that became visible late"
    )
    index_reconcile_seconds: Seconds = Field(
        300.0, description="polling: how often all ids are compared, which finds removed vectors"
    )
    index_stale_seconds: Seconds = Field(
        60.0, description="an index that could not be brought up to date for so long fails /readyz"
    )
    index_backoff_max_seconds: Seconds = Field(10.0, description="cap of the jittered pause after a failure")


class HintSettings(Group):
    """How hints are answered."""

    hint_encode_retries: int = Field(
        3, ge=0, le=100, description="how often a hint for a post without a vector is tried again before the answer"
    )
