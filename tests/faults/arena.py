"""The arena: real servers behind proxies, real worker processes, load, watch and ledger, for one run of faults."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Self
from urllib.parse import urlsplit

import pymongo
from bson import ObjectId

from faults import clock
from faults.frames import amqp_frames, mongo_frames
from faults.ledger import Ledger, wait_for
from faults.points import Points
from faults.proxy import TcpProxy
from faults.traffic import Collector, Mix, Producer
from faults.watch import Holdings, Watch
from feedmill.contract import ROUTES
from feedmill_local.database import Database
from feedmill_local.ports import free_ports
from feedmill_local.rabbitmq import RabbitNode
from support.ci import queue_type
from support.workers import STOP_SECONDS, WorkerProcess

START_SECONDS = 300.0  # torch alone takes a minute to import on a busy machine
HEAL_SECONDS = 120.0
SETTLE_SECONDS = 180.0

# Short intervals, so that a fault of seconds is longer than they are; what is promised is in multiples of these.
QUICK = {
    "FEEDMILL_CHECK_INTERVAL_SECONDS": "1",
    "FEEDMILL_OPERATION_TIMEOUT_SECONDS": "4",
    "FEEDMILL_CONNECT_TIMEOUT_SECONDS": "4",
    "FEEDMILL_RECONNECT_MAX_SECONDS": "2",
    "FEEDMILL_HEARTBEAT_SECONDS": "5",
    "FEEDMILL_STORE_TIMEOUT_SECONDS": "4",
    "FEEDMILL_STORE_SELECTION_TIMEOUT_SECONDS": "3",
    "FEEDMILL_RETRY_DELAYS_SECONDS": "1,2,5,10",
    "FEEDMILL_PREFETCH": "32",
    "FEEDMILL_MAX_BATCH_ITEMS": "8",
    "FEEDMILL_FOLLOW": "auto",
    "FEEDMILL_THREADS": "1",
    "FEEDMILL_LOG_FORMAT": "json",
    "FEEDMILL_PROBE_HOST": "127.0.0.1",
}
NOTICE_BROKER_SECONDS = 8.0
"""Until /readyz tells of a broker that is away: one check's interval and one operation's timeout, and some room."""
NOTICE_DATABASE_SECONDS = 14.0
"""The gate asks every 5 s; then one operation's timeout, and some room."""


@dataclass
class Arena:
    """Everything that one run needs. A context manager: nothing of it stays."""

    node: RabbitNode
    vhost_url: str
    database: Database
    database_name: str
    folder: Path
    seed: int
    workers: tuple[str, ...] = ("toxic", "encode", "hint")
    per_second: float = 12.0
    has_clock: bool = False
    """Whether the workers' wall clock can be set."""
    settings: dict[str, str] = field(default_factory=dict)
    ledger: Ledger = field(default_factory=Ledger)
    first_holdings: dict[str, tuple[int, Holdings]] = field(default_factory=dict)
    heal_seconds: dict[str, float] = field(default_factory=dict)

    def __enter__(self) -> Self:
        self._stack = ExitStack()
        self.random = Random(self.seed)
        self.broker_proxy = self._stack.enter_context(TcpProxy(self.node.config.amqp_port, split=amqp_frames))
        self.database_proxy = self._stack.enter_context(TcpProxy(self.database.config.port, split=mongo_frames))
        self.client: pymongo.MongoClient[dict[str, Any]] = pymongo.MongoClient(self.database.uri)
        self._stack.callback(self.client.close)
        self.store = self.client[self.database_name]
        self._ports = dict(zip(self.workers, free_ports(len(self.workers)), strict=True))
        self.processes: dict[str, WorkerProcess] = {}
        self._lock = threading.RLock()
        self.set_clock("+0")
        self.points = Points(lambda: {worker: pid for worker, (pid, _) in self._targets().items()})
        self.broker_proxy.watch(self.points.at_broker)
        self.database_proxy.watch(self.points.at_database)
        self._stack.callback(self._kill_all)
        try:
            for worker in self.workers:
                self.start_worker(worker)
            for worker in self.workers:
                self.until_ready(worker, START_SECONDS)
        except BaseException:
            self._stack.close()
            raise
        self.mix = Mix(Random(self.seed + 1), self._prepare, self.workers)
        self.watch = Watch(self._targets)
        self.producer = Producer(self.vhost_url, self.ledger, self.mix, self.per_second)
        self.collector = Collector(self.vhost_url, self.ledger, self.workers)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def start_load(self) -> None:
        self.first_holdings = {w: (p.process.pid, Holdings.of(p.process.pid)) for w, p in self.processes.items()}
        self.watch.start()
        self.collector.start()
        self.producer.start()
        self._stack.callback(self._stop_threads)
        self.until_healed("start")

    def _stop_threads(self) -> None:
        for part in (self.producer, self.collector, self.watch):
            with suppress(AssertionError):
                part.stop()

    # ---- workers

    def start_worker(self, worker: str) -> None:
        """Start it, again or for the first time, at its port."""
        port = self._ports[worker]
        environment = {
            **os.environ,
            **QUICK,
            "RABBITMQ_URL": behind(self.vhost_url, self.broker_proxy),
            "MONGO_URI": directly(behind(self.database.uri, self.database_proxy)),
            "DATABASE_NAME": self.database_name,
            "FEEDMILL_PROBE_PORT": str(port),
            "FEEDMILL_QUEUE_TYPE": queue_type(),
            **(clock.environment(self.folder / "clock") if self.has_clock else {}),
            **self.settings,
        }
        log = self.folder / f"{worker}.log"
        with log.open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", f"feedmill_{worker}"],
                env=environment,
                cwd=self.folder,
                stdout=output,
                stderr=output,
            )
        with self._lock:
            self.processes[worker] = WorkerProcess(worker, process, port, log)

    def kill(self, worker: str) -> None:
        self.processes[worker].kill()
        self.start_worker(worker)

    def terminate(self, worker: str) -> None:
        """SIGTERM: it must end by itself, in time, with 0."""
        code = self.processes[worker].terminate()
        assert code == 0, f"{worker} ended with {code} after SIGTERM:\n{self.processes[worker].tail()}"
        self.start_worker(worker)

    def strike(self, worker: str, point: str, number: signal.Signals) -> None:
        """Kill or end the worker exactly there, and start it again."""
        self.points.strike(point, worker, number)
        code = self.processes[worker].process.wait(STOP_SECONDS)
        expected = -signal.SIGKILL if number is signal.SIGKILL else 0
        assert code == expected, f"{worker} ended with {code} {point}:\n{self.processes[worker].tail()}"
        self.start_worker(worker)

    def set_clock(self, offset: str) -> None:
        """Shift the workers' wall clock by so much from the machine's: +2d, -1h. Needs ``has_clock``."""
        (self.folder / "clock").write_text(offset, encoding="ascii")

    def signal(self, worker: str, number: signal.Signals) -> None:
        self.processes[worker].process.send_signal(number)

    def until_ready(self, worker: str, timeout_seconds: float) -> None:
        process = self.processes[worker]
        wait_for(
            process.is_ready, timeout_seconds, lambda: f"{worker} not ready: {process.get('/readyz')}\n{process.tail()}"
        )

    def _kill_all(self) -> None:
        for process in self.processes.values():
            if process.process.poll() is None:
                process.process.send_signal(signal.SIGCONT)
                process.kill()

    def _targets(self) -> dict[str, tuple[int, int]]:
        with self._lock:
            return {worker: (p.process.pid, p.port) for worker, p in self.processes.items()}

    # ---- load

    def _prepare(self, collection: str, identifier: str) -> None:
        """Make the post or comment that a message will speak of, as the backend does before it publishes."""
        while True:
            try:
                self.store[collection].insert_one({"_id": ObjectId(identifier), "by": "backend"})
            except pymongo.errors.DuplicateKeyError:
                return
            except pymongo.errors.PyMongoError:
                time.sleep(0.3)  # the database is away: a backend would wait as well
            else:
                return

    def until_healed(self, name: str) -> float:
        """Wait until every worker is ready and has answered a message accepted from now on; seconds that it took."""
        began = time.monotonic()
        self.producer.resume()
        for worker in self.workers:
            self.until_ready(worker, START_SECONDS)  # a worker that was killed loads its model again
        for worker in self.workers:
            wait_for(
                lambda worker=worker: self.ledger.answered_since(worker, began),
                HEAL_SECONDS,
                lambda worker=worker: f"{worker} answers nothing after {name}:\n{self.processes[worker].tail()}",
            )
        times = [self.ledger.answered_since(worker, began) or began for worker in self.workers]
        self.heal_seconds[name] = max(self.heal_seconds.get(name, 0.0), max(times) - began)
        return max(times) - began

    def until_accepted(self, count: int) -> None:
        """Wait until the broker has accepted so many messages more."""
        goal = len(self.ledger.sent) + count
        wait_for(lambda: len(self.ledger.sent) >= goal, HEAL_SECONDS, f"{count} messages more accepted")

    def until_settled(self) -> None:
        """Stop sending, and wait until every accepted message has its answer and nothing is held or queued."""
        self.producer.pause()
        wait_for(lambda: not self.ledger.unanswered(), SETTLE_SECONDS, self._unanswered_report)
        wait_for(self._is_quiet, SETTLE_SECONDS, "messages are still queued or held")

    def _unanswered_report(self) -> str:
        left = self.ledger.unanswered()
        some = ", ".join(f"{sent.worker} {sent.message_id}" for sent in left[:5])
        depths = {worker: self.depths(worker) for worker in self.workers}
        return f"{len(left)} of {len(self.ledger.sent)} accepted messages have no answer: {some}; queues: {depths}"

    def depths(self, worker: str) -> dict[str, int]:
        """Messages in the worker's queues, with those that are held, as the broker says."""
        told = self.node.ctl("list_queues", "-p", self.vhost, "name", "messages", "--no-table-headers")
        depths = {name: int(count) for name, count in (line.split("\t") for line in told.splitlines() if line)}
        return {name: count for name, count in depths.items() if count and name.startswith(ROUTES[worker].queue)}

    @property
    def vhost(self) -> str:
        return urlsplit(self.vhost_url).path.removeprefix("/")

    def _is_quiet(self) -> bool:
        held = sum(p.metric("feedmill_messages_in_flight") for p in self.processes.values())
        return held == 0 and not any(self.depths(worker) for worker in self.workers)

    def while_drained(self, act: Callable[[], None]) -> None:
        """Do what would destroy messages in the broker at a moment when there are none."""
        self.until_settled()
        act()

    def connections(self) -> int:
        """Connections that the workers have to the broker, as the broker says."""
        told = self.node.ctl("list_connections", "vhost", "client_properties", "--no-table-headers")
        return sum(1 for line in told.splitlines() if line.startswith(f"{self.vhost}\t") and "Feedmill" in line)


def directly(uri: str) -> str:
    """The database's URI, without the driver's looking for other members: these are not behind the proxy."""
    return uri if "directConnection" in uri else f"{uri}&directConnection=true"


def behind(url: str, proxy: TcpProxy) -> str:
    """The URL with the proxy's address in place of the server's."""
    parts = urlsplit(url)
    credentials = f"{parts.netloc.rpartition('@')[0]}@" if "@" in parts.netloc else ""
    return parts._replace(netloc=f"{credentials}127.0.0.1:{proxy.port}").geturl()
