"""``feedmill-encode backfill``: fill the configured model's space from the stored posts."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import socket
import sys
import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NoReturn

from feedmill import logs
from feedmill.backoff import Backoff
from feedmill.errors import Outage, SettingsError
from feedmill.lane import run_blocking
from feedmill.lastword import leave_last_word
from feedmill.lifecycle import EXIT_OK, EXIT_USAGE, Shutdown, leave, run_process
from feedmill.settings import LogSettings, ModelSettings, StoreSettings, read
from feedmill.settings_help import describe
from feedmill.spaces import Space, ensure_active, note_counts, register_space
from feedmill.store import Store
from feedmill.store.opening import open_store
from feedmill_encode import DEFAULT_MODEL
from feedmill_encode.backfill.filling import RANGE_POSTS, Filler, Keeper, Pace, positive
from feedmill_encode.backfill.ledger import Ledger, Progress

if TYPE_CHECKING:
    from feedmill.models.encoder import SentenceEncoder

EXIT_STOPPED = 143
"""Stopped by a signal before the end (128 + SIGTERM): a Kubernetes Job that took 0 for it would count as complete."""
REPORT_SECONDS = 5.0
WATCH_SECONDS = 1.0
BEATS_PER_STALE = 5

_log = logging.getLogger(__name__)


def run_backfill(arguments: Sequence[str]) -> NoReturn:
    """Parse ``arguments``, work until the space is full or a signal comes, exit."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        log_settings = read(LogSettings)
        settings = read(StoreSettings), read(ModelSettings)
    except SettingsError as error:
        parser.exit(EXIT_USAGE, f"{parser.prog}: {error}\n")
    logs.configure(log_settings, "encode-backfill")
    outcome: list[bool] = []

    async def main(shutdown: Shutdown) -> None:
        outcome.append(await _backfill(options, *settings, shutdown))

    code = run_process(main)
    leave(EXIT_STOPPED if code == EXIT_OK and outcome != [True] else code)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="feedmill-encode backfill",
        description="Fill the configured model's embedding space from the stored posts. Posts whose content is there "
        "already are left as they are. Safe beside live traffic; several may run at once and share the work; what is "
        "done is kept in the database, so that it can be stopped, killed and started again at any time. Once through, "
        "the next start looks through all posts again.",
        epilog="exit status: 0 all posts are done, 1 failed, 2 wrong usage or settings, 143 stopped by a signal before "
        "the end.\n\nsettings, from the environment or a .env file:\n\n"
        + describe((StoreSettings, ModelSettings, LogSettings)),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--rate", type=positive, metavar="POSTS_PER_SECOND", help="posts encoded a second at most (default: no limit)")
    add("--batch", type=_whole, default=64, metavar="N", help="posts encoded at once (default: %(default)s)")
    add(
        "--worker-id",
        default="",
        help="unique among those that run at once; after a restart the same one goes on with its own posts at once "
        "(default: made from host name and process)",
    )
    add(
        "--stale-seconds",
        type=positive,
        default=30.0,
        help="posts in the hands of a process that has been silent for so long are taken over (default: %(default)s)",
    )
    add(
        "--give-up-seconds",
        type=positive,
        default=600.0,
        help="how long a database that is away is waited for (default: %(default)s)",
    )
    add("--json", action="store_true", help="print the outcome as JSON")
    return parser


async def _backfill(
    options: argparse.Namespace, store_settings: StoreSettings, model_settings: ModelSettings, shutdown: Shutdown
) -> bool:
    """Whether the space is full."""
    encoder = await run_blocking(lambda: _load(model_settings), "load-model")
    space = Space(encoder.space, encoder.uri, encoder.revision, encoder.dimensions)
    worker_id = options.worker_id or f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:6]}"
    async with open_store(store_settings, "feedmill-backfill") as store:
        ledger = Ledger(store, space, worker_id, options.stale_seconds)
        pace = Pace(options.rate)
        filler = Filler(store, space, encoder, model_settings.max_text_chars, options.batch, pace, shutdown.requested)
        try:
            run = _Run(store, space, ledger, filler, options)
            progress = await run.until_done(shutdown)
        finally:
            filler.close()
        _print(options, space, progress, filler)
    return progress.is_done


class _Run:
    """One process's part of the backfill, through outages of the database."""

    def __init__(self, store: Store, space: Space, ledger: Ledger, filler: Filler, options: argparse.Namespace) -> None:
        self._store = store
        self._space = space
        self._ledger = ledger
        self._filler = filler
        self._options = options
        self._report = _Report(space)
        self._begun = False

    async def until_done(self, shutdown: Shutdown) -> Progress:
        """Return when everything is done or a shutdown is asked for. Raises Outage after ``--give-up-seconds``."""
        backoff = Backoff(0.2, 5.0)
        away_since: float | None = None
        while True:
            try:
                if await self._step(shutdown):
                    return await self._end()
                away_since = None
                backoff.reset()
            except Outage as outage:
                away_since = away_since or time.monotonic()
                if shutdown.requested.is_set() or time.monotonic() - away_since > self._options.give_up_seconds:
                    raise
                _log.warning("waiting for the database: %s", outage)
                await _pause(shutdown, backoff.next())

    async def _step(self, shutdown: Shutdown) -> bool:
        """Work on one lease. Answers whether there is nothing more to do for this process."""
        if not self._begun:
            await register_space(self._store, self._space)
            await ensure_active(self._store, self._space.name)
            await self._ledger.begin()
            self._begun = True
        if shutdown.requested.is_set():
            return True
        lease = await self._ledger.claim(RANGE_POSTS)
        if lease is None:
            progress = await self._ledger.progress()
            if not progress.is_done:
                self._report.tick(progress, waiting=True)
                await _pause(shutdown, WATCH_SECONDS)
            return progress.is_done
        async with Keeper(self._ledger, lease, self._options.stale_seconds / BEATS_PER_STALE) as keeper:
            posts = await self._filler.fill(self._ledger, lease)
        if keeper.lease is not None and posts is not None:
            await self._ledger.complete(keeper.lease, posts)
        elif keeper.lease is not None:
            await self._ledger.release(keeper.lease)
        if self._report.is_due():
            await note_counts(self._store, self._space)
            self._report.tick(await self._ledger.progress())
        return False

    async def _end(self) -> Progress:
        await note_counts(self._store, self._space)
        progress = await self._ledger.progress()
        self._report.tick(progress, now=True)
        return progress


class _Report:
    """A line every few seconds: how far all processes together are, and how long it may still take."""

    def __init__(self, space: Space) -> None:
        self._space = space
        self._first: tuple[float, int] | None = None
        self._due = 0.0

    def is_due(self) -> bool:
        return time.monotonic() >= self._due

    def tick(self, progress: Progress, *, waiting: bool = False, now: bool = False) -> None:
        if not (now or self.is_due()):
            return
        moment = time.monotonic()
        self._due = moment + REPORT_SECONDS
        self._first = self._first or (moment, progress.done)
        rate = (progress.done - self._first[1]) / max(1e-9, moment - self._first[0])
        left = max(0, progress.total - progress.done)
        _log.info(
            "backfill: space=%s done=%d total=%d posts_per_second=%s seconds_left=%s%s",
            self._space.name,
            progress.done,
            progress.total,
            f"{rate:.0f}" if rate >= 1 else "?",
            f"{left / rate:.0f}" if rate >= 1 else "?",
            " (waiting for the posts of other processes)" if waiting else "",
        )


async def _pause(shutdown: Shutdown, seconds: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await shutdown.requested.wait()


def _load(settings: ModelSettings) -> SentenceEncoder:
    from feedmill.models.encoder import load_encoder

    encoder = load_encoder(settings, DEFAULT_MODEL)
    encoder.warm_up()
    return encoder


def _print(options: argparse.Namespace, space: Space, progress: Progress, filler: Filler) -> None:
    counts: dict[str, Any] = asdict(filler.counts)
    if options.json:
        outcome = {"space": space.name, "state": "done" if progress.is_done else "running"}
        text = json.dumps({**outcome, "done": progress.done, "total": progress.total, **counts})
        leave_last_word(text)
    else:
        what = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in counts.items())
        end = "full" if progress.is_done else f"not full yet ({progress.done} of {progress.total} posts looked at)"
        text = f"space {space.name} is {end}; by this process: {what}"
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _whole(text: str) -> int:
    value = int(text)
    if not 1 <= value <= 4096:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 to 4096, got {text}")
    return value
