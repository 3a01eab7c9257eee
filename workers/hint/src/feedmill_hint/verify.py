"""``python -m feedmill_hint.verify --space NAME``: is this embedding space fit to be the active one?

Builds the space's index as a hint worker would, beside nothing that serves, and answers as JSON: ``coverage`` (the
share of the posts that have a vector), ``recall`` (of the index against exact search), ``overlap`` (of nearest posts
with those in the active space: reported, no gate: a new model is meant to differ) and ``active`` (the space that is
active now).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import sys
from contextlib import aclosing
from typing import Any

import numpy as np

from feedmill import logs
from feedmill.errors import FeedmillError, ModelError, SettingsError
from feedmill.lastword import leave_last_word
from feedmill.settings import LogSettings, StoreSettings, read
from feedmill.spaces import Space, coverage, list_spaces, stream_vectors
from feedmill.store import Store
from feedmill.store.opening import open_store
from feedmill_hint.index import VectorIndex
from feedmill_hint.loading import learn_lists
from feedmill_hint.settings import RECALL_TARGET
from feedmill_hint.vectors import usable

log = logging.getLogger(__name__)

NEIGHBOURS = 10
SAMPLE = 200
PATIENCE_SECONDS = 30.0
"""Posts that are being encoded while they are counted get so long; only a post that nobody encodes takes it all."""


async def verify(store: Store, name: str) -> dict[str, Any]:
    """Measure the space ``name``. Raises ModelError (not known, or no active space) or Outage."""
    spaces = {info.space.name: info for info in await list_spaces(store)}
    active = next((info.space for info in spaces.values() if info.is_active), None)
    if name not in spaces or active is None:
        raise ModelError(f"space {name}: expected a registered one, and an active one beside it")
    space = spaces[name].space
    covered, posts = await coverage(store, space, patience_seconds=PATIENCE_SECONDS)
    index = await _loaded(store, space)
    await asyncio.to_thread(_settle, index)
    recall = await asyncio.to_thread(index.recall, SAMPLE, NEIGHBOURS)
    other = index if active.name == name else await _loaded(store, active)
    shared, sample = await asyncio.to_thread(_overlap, index, other)
    return {
        "space": name,
        "active": active.name,
        "posts": posts,
        "coverage": covered / posts if posts else 1.0,
        "recall": 1.0 if recall is None else recall,  # None: below the size where the index is anything but exact
        "overlap": shared,
        "sample": sample,
    }


async def _loaded(store: Store, space: Space) -> VectorIndex:
    index = VectorIndex(space.dimensions)
    index.expect(await store.count(space.collection))
    await learn_lists(store, space, index)
    async with aclosing(stream_vectors(store, space)) as batches:
        async for batch in batches:
            packed = np.frombuffer(b"".join(entry.vector for entry in batch), "<f4")
            matrix = packed.astype(np.float32, copy=False).reshape(len(batch), space.dimensions)
            sound = usable(matrix)
            ids = [entry.id for entry, is_sound in zip(batch, sound, strict=True) if is_sound]
            await asyncio.to_thread(index.upsert, ids, matrix[sound])
    log.info("loaded space %s: %d vectors", space.name, len(index))
    return index


def _settle(index: VectorIndex) -> None:
    """Into the shape in which it would serve."""
    while index.wants_successor():
        index.add_successor()
        while index.move_some():
            pass
    index.tune(RECALL_TARGET, SAMPLE, NEIGHBOURS)


def _overlap(one: VectorIndex, other: VectorIndex) -> tuple[float | None, int]:
    """The mean share of the nearest posts that both have in common, by posts that are in both."""
    common = sorted(one.ids() & other.ids(), key=str)
    rng = np.random.default_rng(0)
    chosen = [common[place] for place in rng.permutation(len(common))[:SAMPLE]]
    if len(common) < 2:
        return None, 0
    found = []
    for index in (one, other):
        vectors = index.vectors(chosen)
        matrix = np.stack([vectors[post_id] for post_id in chosen])
        found.append(index.search(matrix, NEIGHBOURS, chosen))
    shares = [
        len({p for p, _ in mine} & {p for p, _ in theirs}) / max(1, min(len(mine), len(theirs)))
        for mine, theirs in zip(*found, strict=True)
    ]
    return float(np.mean(shares)), len(chosen)


def main(argv: list[str] | None = None) -> int:
    """The command. Exit codes: 0 measured (whatever the figures), 1 failed, 2 usage."""
    parser = argparse.ArgumentParser(
        prog="python -m feedmill_hint.verify", description=(__doc__ or "").partition("\n\n")[2]
    )
    parser.add_argument("--space", required=True, help="the space to measure")
    options = parser.parse_args(argv)
    try:
        settings = read(StoreSettings)
        logs.configure(read(LogSettings), "hint-verify")
    except SettingsError as error:
        sys.stderr.write(f"{parser.prog}: {error}\n")
        return 2

    async def run() -> dict[str, Any]:
        async with open_store(settings, "feedmill-verify") as store:
            return await verify(store, options.space)

    try:
        answer, code = asyncio.run(run()), 0
    except FeedmillError as error:
        answer, code = {"error": str(error)}, 1
    text = json.dumps(answer)
    sys.stdout.write(text + "\n")
    leave_last_word(text)
    return code


if __name__ == "__main__":
    sys.exit(main())
