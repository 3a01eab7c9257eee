"""Latency at a steady load: arrivals at random times, as many as are due whatever the system does (an open loop).

Each latency counts from the moment at which its message was due, not from when it was sent: a bench that sends late
because the system is slow would else leave out exactly the waiting that it is to measure (coordinated omission).
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import pika
from processes import cpu_seconds, resident_mb
from running import Running, Servers, answer_id, running
from systems import Post, System

DRAIN_SECONDS = 3.0
"""What is not answered so long after the last arrival counts as still waiting."""
LOOK_SECONDS = 0.2


@dataclass(frozen=True)
class Steady:
    """One system at one load. What was never answered counts with the time that it had waited by then."""

    system: str
    load: float
    """Share of our own capacity."""
    offered_per_second: float
    messages: int
    answered: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    in_flight: int
    """The most messages that it held unacknowledged."""
    queue_at_end: int
    """Messages still waiting in its queue when the last one had arrived."""
    rss_mb: float
    cpu_share: float
    """Cores in use."""


def steady(
    system: System, posts: Sequence[Post], servers: Servers, loads: Sequence[float], capacity: float, seconds: float
) -> Iterator[Steady]:
    """``system`` at each load in turn, ``seconds`` long, ascending; at the first that it can't keep up with, the
    queue is left behind and the next load starts on what is purged.

    Each load has posts of its own: a post that is encoded already costs the worker next to nothing.
    """
    counts = [_count(load * capacity, seconds) for load in loads]
    with running(system, posts, servers) as it:
        rest = iter(posts[1:])
        for number, (load, count) in enumerate(zip(loads, counts, strict=True)):
            yield _one(it, servers, list(islice(rest, count)), load, load * capacity, random.Random(number))
            _settle(it)


def posts_for(loads: Sequence[float], capacity: float, seconds: float) -> int:
    """How many posts :func:`steady` takes, the first one included."""
    return 1 + sum(_count(load * capacity, seconds) for load in loads)


def _count(rate: float, seconds: float) -> int:
    return max(3, int(rate * seconds))


def _one(
    it: Running, servers: Servers, posts: Sequence[Post], load: float, rate: float, chance: random.Random
) -> Steady:
    gaps = [chance.expovariate(rate) for _ in posts]
    began = time.monotonic() + 0.2
    due = [began + sum(gaps[: number + 1]) for number in range(len(posts))]
    came: dict[str, float] = {}
    reading = threading.Thread(target=_read, args=(servers, it.system.result_queue, came, len(posts), due[-1]))
    reading.start()
    cpu = cpu_seconds(it.process.pid)
    held, looked, rss = 0, began, 0.0
    for number, (post, moment) in enumerate(zip(posts, due, strict=True)):
        it.connection.sleep(max(0.0, moment - time.monotonic()))
        it.publish([post])
        if time.monotonic() - looked > LOOK_SECONDS:
            looked = time.monotonic()
            held = max(held, number + 1 - len(came) - it.waiting())
            rss = max(rss, resident_mb(it.process.pid))
    queue = it.waiting()
    cpu, spent = cpu_seconds(it.process.pid) - cpu, time.monotonic() - began
    reading.join()
    ended = time.monotonic()
    waits = sorted(1000 * (came.get(post["_id"], ended) - moment) for post, moment in zip(posts, due, strict=True))
    return Steady(
        it.system.name, load, rate, len(posts), len(came), *(waits[int(len(waits) * share)] for share in _SHARES),
        held, queue, rss, cpu / spent,
    )  # fmt: skip


_SHARES = (0.5, 0.95, 0.99)


def _read(servers: Servers, queue: str, came: dict[str, float], count: int, last: float) -> None:
    """Note when each answer came, on a connection of its own."""
    with pika.BlockingConnection(pika.URLParameters(servers.rabbit_url)) as connection:
        channel = connection.channel()
        for method, _, body in channel.consume(queue, auto_ack=True, inactivity_timeout=0.1):
            if method is not None:
                came.setdefault(answer_id(body), time.monotonic())
            if len(came) >= count or time.monotonic() > last + DRAIN_SECONDS:
                break
        channel.cancel()


def _settle(it: Running) -> None:
    """Take away what is left of this load."""
    it.channel.queue_purge(it.queue)
    quiet = 0
    while quiet < 2:
        it.connection.sleep(0.3)
        left = it.channel.queue_purge(it.system.result_queue).method.message_count
        quiet = 0 if left else quiet + 1
