"""The encode worker's own settings."""

from __future__ import annotations

from pydantic import Field

from feedmill.settings import Group, Seconds


class UpkeepSettings(Group):
    """What the encode worker sees to beside its messages."""

    upkeep_look_seconds: Seconds = Field(30.0, description="how often is looked whether there is something to see to")
    upkeep_copy_rate: float = Field(
        500.0, ge=0, description="posts a second whose posts.embedding follows a switch of the active space; 0: none"
    )
    upkeep_prune_seconds: float = Field(
        86_400.0, ge=0, description="how often vectors of posts that are gone are removed, by one worker; 0: never"
    )
    upkeep_grace_seconds: float = Field(
        3600.0, ge=0, description="a vector that is younger stays: its post may still be about to be stored"
    )
