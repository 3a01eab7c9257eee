"""The nemeses: each does one kind of harm while load runs, holds it for a while, and takes it back.

The window ends before the harm is taken back: taking it back takes time, in which workers may already be well.
A nemesis returns when its harm is over; whether the system is well again is the arena's to find out. Where workers
can't work meanwhile, it says so (``cannot_work``): their /readyz must come to say the same.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from contextlib import suppress

from faults.arena import NOTICE_BROKER_SECONDS, NOTICE_DATABASE_SECONDS, Arena
from faults.ledger import wait_for
from faults.points import POINTS
from feedmill.contract import ROUTES
from support.amqp import connect
from support.ci import queue_type

Nemesis = Callable[[Arena], None]


def _one(arena: Arena) -> str:
    return arena.random.choice(arena.workers)


def _hold(arena: Arena, least: float, most: float) -> None:
    """The only waiting by time here: a fault has a duration."""
    time.sleep(arena.random.uniform(least, most))


# ---- workers


def worker_killed(arena: Arena) -> None:
    for _ in range(2):
        worker = _one(arena)
        _until_busy(arena, worker)
        arena.kill(worker)


def worker_terminated(arena: Arena) -> None:
    worker = _one(arena)
    _until_busy(arena, worker)
    arena.terminate(worker)


def worker_stopped(arena: Arena) -> None:
    """SIGSTOP for longer than the broker's patience with its heartbeat, then SIGCONT."""
    worker = _one(arena)
    arena.signal(worker, signal.SIGSTOP)
    _hold(arena, 8, 16)
    arena.signal(worker, signal.SIGCONT)


def _until_busy(arena: Arena, worker: str) -> None:
    """Until the worker holds messages; with luck, if it never does."""
    with suppress(AssertionError):
        wait_for(lambda: arena.processes[worker].metric("feedmill_messages_in_flight") > 0, 5, "busy", 0.01)


def _struck(point: str, number: signal.Signals) -> Nemesis:
    """One worker killed, or asked to end, exactly there: see ``faults.points.POINTS``."""

    def nemesis(arena: Arena) -> None:
        writers = [worker for worker in arena.workers if worker != "hint"]  # hint writes nothing
        worker = arena.random.choice(writers if point in {"before_write", "after_write"} else arena.workers)
        arena.strike(worker, point, number)

    nemesis.__name__ = f"{'killed' if number is signal.SIGKILL else 'terminated'}_{point}"
    return nemesis


CRASHES = {
    nemesis.__name__: nemesis
    for number in (signal.SIGKILL, signal.SIGTERM)
    for nemesis in (_struck(point, number) for point in POINTS)
}


# ---- broker


def broker_killed(arena: Arena) -> None:
    arena.node.kill()
    with arena.watch.cannot_work(arena.workers, "broker killed", NOTICE_BROKER_SECONDS):
        _hold(arena, 1, 12)
    arena.node.boot()


def broker_stopped(arena: Arena) -> None:
    arena.node.stop()
    with arena.watch.cannot_work(arena.workers, "broker stopped", NOTICE_BROKER_SECONDS):
        _hold(arena, 1, 3)
    arena.node.boot()


def connections_closed(arena: Arena) -> None:
    arena.node.close_all_connections()


def channels_closed(arena: Arena) -> None:
    """As the broker does to a channel that does something wrong."""
    arena.node.ctl(
        "eval",
        "[exit(C, kill) || C <- rabbit_channel:list_local()], ok.",
    )


def queues_deleted(arena: Arena) -> None:
    """All of the workers' queues, at a moment when they hold nothing: what a queue holds goes with it."""

    def delete() -> None:
        with connect(arena.vhost_url) as client:
            for worker in arena.workers:
                route = ROUTES[worker]
                for queue in (route.queue, route.result_queue, route.dead_queue, route.retry_queue(1)):
                    client.channel.queue_delete(queue)

    arena.while_drained(delete)
    for worker in arena.workers:
        wait_for(lambda worker=worker: _is_consumed(arena, worker), 60, f"{worker} consumes again")


def _is_consumed(arena: Arena, worker: str) -> bool:
    told = arena.node.ctl("list_consumers", "-p", arena.vhost, "queue_name", "--no-table-headers")
    return ROUTES[worker].queue in told.split()


def consumers_cancelled(arena: Arena) -> None:
    """The input queue is deleted and made again by somebody else: the broker cancels the consumer, or, with quorum
    queues on 3.10, leaves it waiting for what never comes."""

    def again() -> None:
        with connect(arena.vhost_url) as client:
            for worker in arena.workers:
                route = ROUTES[worker]
                client.channel.queue_delete(route.queue)
                with suppress(Exception):  # the worker may have been quicker
                    client.channel.queue_declare(route.queue, durable=True, arguments={"x-queue-type": queue_type()})
                    client.channel.queue_bind(route.queue, route.exchange, route.queue)

    arena.while_drained(again)
    for worker in arena.workers:
        wait_for(lambda worker=worker: _is_consumed(arena, worker), 60, f"{worker} consumes again")


def memory_alarm(arena: Arena) -> None:
    arena.node.ctl("set_vm_memory_high_watermark", "absolute", "1MB")
    with arena.watch.cannot_work(arena.workers, "memory alarm", NOTICE_BROKER_SECONDS + 4):
        _hold(arena, 8, 16)
    arena.node.ctl("set_vm_memory_high_watermark", "0.4")


def disk_alarm(arena: Arena) -> None:
    arena.node.ctl("set_disk_free_limit", "1000000GB")
    with arena.watch.cannot_work(arena.workers, "disk alarm", NOTICE_BROKER_SECONDS + 4):
        _hold(arena, 8, 16)
    arena.node.ctl("set_disk_free_limit", "50MB")


def consumer_timeout(arena: Arena) -> None:
    """The broker loses its patience with consumers that hold messages too long, as the database is away meanwhile.

    RabbitMQ up to 4.2 closes the channel then, later versions cancel the consumer.
    """
    arena.node.ctl("eval", CONSUMER_TIMEOUT.format(timeout=1_000, tick=500))
    arena.database_proxy.stall("up", "down")
    _hold(arena, 8, 12)
    arena.database_proxy.stall()
    arena.node.ctl("eval", CONSUMER_TIMEOUT.format(timeout=1_800_000, tick=60_000))


CONSUMER_TIMEOUT = (
    "application:set_env(rabbit, consumer_timeout, {timeout}), "
    "application:set_env(rabbit, channel_tick_interval, {tick})."
)


# ---- the clock


def clock_jumps(arena: Arena) -> None:
    """The workers' wall clock goes two days ahead, back to a day ago, and home; their monotonic clock does not."""
    for offset in ("+2d", "-1d", "+0"):
        arena.set_clock(offset)
        arena.until_accepted(20)
        arena.until_healed(f"clock {offset}")


# ---- network to the broker


def broker_cut(arena: Arena) -> None:
    for _ in range(3):
        arena.broker_proxy.cut()
        _hold(arena, 0.2, 2)


def broker_refuses(arena: Arena) -> None:
    arena.broker_proxy.refuse()
    with arena.watch.cannot_work(arena.workers, "broker refuses connections", NOTICE_BROKER_SECONDS):
        _hold(arena, 4, 12)
    arena.broker_proxy.refuse(False)


def broker_unreachable(arena: Arena) -> None:
    """Packets are dropped both ways, then delivered again."""
    arena.broker_proxy.stall("up", "down")
    with arena.watch.cannot_work(arena.workers, "broker unreachable", NOTICE_BROKER_SECONDS):
        _hold(arena, 6, 14)
    arena.broker_proxy.stall()


def broker_deaf(arena: Arena) -> None:
    """What workers send is lost on the way; what the broker sends arrives."""
    arena.broker_proxy.stall("up")
    with arena.watch.cannot_work(arena.workers, "broker hears nothing", NOTICE_BROKER_SECONDS):
        _hold(arena, 6, 14)
    arena.broker_proxy.stall()


def broker_mute(arena: Arena) -> None:
    arena.broker_proxy.stall("down")
    with arena.watch.cannot_work(arena.workers, "broker says nothing", NOTICE_BROKER_SECONDS):
        _hold(arena, 6, 14)
    arena.broker_proxy.stall()


def broker_half_open(arena: Arena) -> None:
    """The connections that exist are dead without a word; new ones work."""
    arena.broker_proxy.freeze()
    _hold(arena, 1, 12)
    arena.broker_proxy.heal()


def broker_half_closed(arena: Arena) -> None:
    arena.broker_proxy.half_close()
    _hold(arena, 1, 3)


def broker_slow(arena: Arena) -> None:
    arena.broker_proxy.slow(delay_seconds=0.15, bytes_per_second=100_000)
    _hold(arena, 8, 15)
    arena.broker_proxy.heal()


# ---- database and the network to it


def database_killed(arena: Arena) -> None:
    arena.database.kill()
    with arena.watch.cannot_work(arena.workers, "database killed", NOTICE_DATABASE_SECONDS):
        _hold(arena, 1, 20)
    arena.database.boot()


def database_stopped(arena: Arena) -> None:
    arena.database.stop()
    with arena.watch.cannot_work(arena.workers, "database stopped", NOTICE_DATABASE_SECONDS):
        _hold(arena, 1, 3)
    arena.database.boot()


def database_cut(arena: Arena) -> None:
    for _ in range(3):
        arena.database_proxy.cut()
        _hold(arena, 0.2, 2)


def database_unreachable(arena: Arena) -> None:
    direction = arena.random.choice([("up", "down"), ("up",), ("down",)])
    arena.database_proxy.stall(*direction)
    with arena.watch.cannot_work(arena.workers, f"database unreachable {direction}", NOTICE_DATABASE_SECONDS):
        _hold(arena, 16, 22)
    arena.database_proxy.stall()


def database_refuses(arena: Arena) -> None:
    arena.database_proxy.refuse()
    with arena.watch.cannot_work(arena.workers, "database refuses connections", NOTICE_DATABASE_SECONDS):
        _hold(arena, 14, 18)
    arena.database_proxy.refuse(False)


def database_half_open(arena: Arena) -> None:
    arena.database_proxy.freeze()
    _hold(arena, 1, 10)
    arena.database_proxy.heal()


def database_slow(arena: Arena) -> None:
    arena.database_proxy.slow(delay_seconds=0.3, bytes_per_second=200_000)
    _hold(arena, 8, 15)
    arena.database_proxy.heal()


def database_fails_over(arena: Arena) -> None:
    """Every write is refused, as by a member that is not, or no longer, the primary."""
    _refuse_writes(arena, 10107, "NotWritablePrimary")


def database_disk_full(arena: Arena) -> None:
    _refuse_writes(arena, 14031, "OutOfDiskSpace")


def _refuse_writes(arena: Arena, code: int, name: str) -> None:
    arena.points.refuse_writes(lambda _: {"ok": 0.0, "code": code, "codeName": name, "errmsg": f"{name} (injected)"})
    _hold(arena, 6, 12)
    arena.points.refuse_writes(None)
    assert arena.points.refused, "no write came meanwhile"


def duplicate_keys(arena: Arena) -> None:
    """Every write meets a duplicate key, as upserts that race do; for less time than the retries last."""
    error = {"code": 11000, "errmsg": "E11000 duplicate key error (injected)"}
    arena.points.refuse_writes(
        lambda frame: {
            "ok": 1.0,
            "n": 0,
            "nModified": 0,
            "writeErrors": [{"index": index, **error} for index in range(frame.count)],
        }
    )
    _hold(arena, 3, 5)
    arena.points.refuse_writes(None)
    assert arena.points.refused, "no write came meanwhile"


# ---- two things at once


def terminated_in_an_outage(arena: Arena) -> None:
    """SIGTERM while the database is away: what is started can't be finished, and is handed back in time."""
    worker = _one(arena)
    arena.database_proxy.stall("up", "down")
    _hold(arena, 0, 4)
    arena.terminate(worker)
    arena.database_proxy.stall()


def terminated_without_a_broker(arena: Arena) -> None:
    worker = _one(arena)
    arena.broker_proxy.stall("up", "down")
    _hold(arena, 0, 4)
    arena.terminate(worker)
    arena.broker_proxy.stall()


def both_servers_killed(arena: Arena) -> None:
    arena.node.kill()
    arena.database.kill()
    with arena.watch.cannot_work(arena.workers, "both servers killed", NOTICE_DATABASE_SECONDS):
        _hold(arena, 1, 16)
    arena.node.boot()
    arena.database.boot()


NEMESES: dict[str, Nemesis] = {
    nemesis.__name__: nemesis
    for nemesis in (
        worker_killed,
        worker_terminated,
        worker_stopped,
        broker_killed,
        broker_stopped,
        connections_closed,
        channels_closed,
        queues_deleted,
        consumers_cancelled,
        memory_alarm,
        disk_alarm,
        consumer_timeout,
        clock_jumps,
        broker_cut,
        broker_refuses,
        broker_unreachable,
        broker_deaf,
        broker_mute,
        broker_half_open,
        broker_half_closed,
        broker_slow,
        database_killed,
        database_stopped,
        database_cut,
        database_unreachable,
        database_refuses,
        database_half_open,
        database_slow,
        database_fails_over,
        database_disk_full,
        duplicate_keys,
        terminated_in_an_outage,
        terminated_without_a_broker,
        both_servers_killed,
    )
} | CRASHES
