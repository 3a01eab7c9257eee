"""The hint worker's own settings."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, SecretStr

from feedmill.settings import Group, Name, Seconds

RECALL_TARGET = 0.995
"""Above the 0.99 that is promised, as it is measured on samples."""


class FollowSettings(Group):
    """How the index in memory follows the stored vectors."""

    follow: Literal["auto", "stream", "poll"] = Field(
        "auto", description="stream, poll, or auto: the database's change stream where it has one, else polling"
    )
    space_poll_seconds: Seconds = Field(2.0, description="how often the pointer to the active space is read")
    index_poll_seconds: Seconds = Field(1.0, description="polling: how often new and changed vectors are asked for")
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
    index_engine: Literal["embedded", "qdrant"] = Field(
        "embedded", description="embedded: in this process; qdrant: on a Qdrant server (docs/adr/0004)"
    )
    qdrant_url: str = Field("", description="http:// or https:// URL of the Qdrant server")
    qdrant_api_key: SecretStr = Field(SecretStr(""), description="its API key, if it wants one")
    index_exact_below: int = Field(
        10_000, ge=1, le=1_000_000, description="up to so many vectors every search is exact; above, faiss's IVF"
    )
    index_max_bytes: int = Field(
        0, ge=0, description="memory for the index; 0: three quarters of the container's limit, if it has one"
    )
    index_recall_target: float = Field(
        RECALL_TARGET,
        gt=0,
        le=1,
        description="recall@10 that searches are tuned for, on samples; feedmill_index_recall",
    )
    index_recall_seconds: Seconds = Field(30.0, description="how often a search is checked against an exact one")
    index_snapshot_dir: str = Field("", description="folder on a volume for snapshots of the index; empty: none")
    index_snapshot_seconds: Seconds = Field(
        900.0, description="how often a snapshot is written, if anything changed; and at shutdown"
    )


class HintSettings(Group):
    """How hints are answered."""

    hint_post_fields: str = Field(
        "", description="fields of a post in an answer, by commas; empty: all. Its vector never is"
    )
    hint_exclude_same_author: bool = Field(False, description="leave out posts by the author of the asking post")
    hint_author_field: Name = Field("authorId", description="the field of a post that names its author")
    hint_exclude_deleted: bool = Field(True, description="leave out posts marked as deleted")
    hint_deleted_fields: Name = Field(
        "deleted,isDeleted,deletedAt",
        description="a post with one of these fields set (not false, not null) is deleted",
    )
    hint_exclude_toxic: bool = Field(False, description="leave out posts marked as toxic (isToxic)")
    hint_date_field: Name = Field("createdAt", description="the date that a message's since is compared with")
    hint_min_score: float = Field(-1.0, ge=-1, le=1, description="leave out posts that are less similar")
    hint_encode_retries: int = Field(
        3, ge=0, le=100, description="how often a hint for a post without a vector is tried again before the answer"
    )
