"""A small cluster with one worker installed and a rollout of it wanted."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from support.kube import World, rollout, world


@pytest.fixture
async def toxic(kmock: Any) -> AsyncIterator[World]:
    async with world(kmock, "toxic") as it:
        it.put("rollouts", rollout("toxic"))
        yield it


@pytest.fixture
async def encode(kmock: Any) -> AsyncIterator[World]:
    async with world(kmock, "encode", "hint") as it:
        it.put("rollouts", rollout("encode"))
        yield it
