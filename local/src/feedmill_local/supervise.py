"""Looking after a stack in the foreground, as a kubelet would: what has died is started again, with back-off."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from feedmill.backoff import Backoff
from feedmill_local import own_servers, state
from feedmill_local.errors import StackError
from feedmill_local.probing import readiness
from feedmill_local.state import Stack
from feedmill_local.workers import Say, Servers, death_notice, start_worker

CHECK_SECONDS = 0.5
FIRST_DELAY_SECONDS = 1.0
MAX_DELAY_SECONDS = 60.0
STABLE_SECONDS = 60.0
"""What has run this long is started again without much delay when it dies."""


@dataclass
class Part:
    """A worker or a private server. ``due``: when to start it again, by the monotonic clock; None while it runs."""

    name: str
    alive: Callable[[], bool]
    notice: Callable[[], str]
    """How it died. Called once for each death."""
    restart: Callable[[], None]
    backoff: Backoff = field(default_factory=lambda: Backoff(FIRST_DELAY_SECONDS, MAX_DELAY_SECONDS))
    due: float | None = None
    since: float = field(default_factory=time.monotonic)

    def check(self, now: float, say: Say) -> None:
        """Say that it died, or start it again when it is time."""
        if self.due is None:
            if not self.alive():
                self._died(now, say)
        elif now >= self.due:
            self._start(now, say)

    def _died(self, now: float, say: Say) -> None:
        say(self.notice())
        if now - self.since > STABLE_SECONDS:
            self.backoff.reset()
        self._later(now, say)

    def _start(self, now: float, say: Say) -> None:
        try:
            self.restart()
        except StackError as error:
            say(f"{self.name}: {error}")
            self._later(now, say)
        else:
            self.due, self.since = None, now

    def _later(self, now: float, say: Say) -> None:
        delay = self.backoff.next()
        say(f"{self.name}: starting again in {delay:.1f} s")
        self.due = now + delay


class Supervisor:
    """Keeps ``stack`` whole, and ``stack.json`` true."""

    def __init__(self, folder: Path, stack: Stack, say: Say) -> None:
        self._folder = folder
        self._stack = stack
        self._say = say
        self._not_ready: set[str] = set()
        self._parts = [self._server(name) for name in stack.own_servers]
        self._parts += [self._worker(name) for name in stack.workers]

    def run(self, stop: threading.Event) -> None:
        """Look after it until ``stop`` is set. Blocks."""
        while not stop.wait(CHECK_SECONDS):
            for part in self._parts:
                part.check(time.monotonic(), self._say)
            for name in list(self._not_ready):
                if readiness(self._stack.workers[name].probe_url).ready:
                    self._not_ready.remove(name)
                    self._say(f"{name}: ready again")

    def _worker(self, name: str) -> Part:
        return Part(
            name,
            alive=lambda: self._worker_alive(name),
            notice=lambda: death_notice(name, self._stack.workers[name].process, self._folder),
            restart=lambda: self._restart_worker(name),
        )

    def _server(self, name: str) -> Part:
        title = own_servers.TITLES[name]
        return Part(
            title,
            alive=lambda: own_servers.own_alive(self._folder, name),
            notice=lambda: f"{title} ended; its log is {own_servers.log_file(self._folder, name)}",
            restart=lambda: self._restart_server(name),
        )

    def _worker_alive(self, name: str) -> bool:
        return self._stack.workers[name].alive()

    def _restart_worker(self, name: str) -> None:
        stack = self._stack
        stack.workers[name].process.kill()  # what it may have left behind
        servers = Servers(stack.rabbitmq_url, stack.mongo_uri, stack.database)
        worker = start_worker(name, servers, self._folder, outlive=False)
        self._stack = replace(stack, workers={**stack.workers, name: worker})
        state.save(self._folder, self._stack)
        self._not_ready.add(name)
        self._say(f"{name}: started again, pid {worker.pid}")

    def _restart_server(self, name: str) -> None:
        own_servers.restart_own(self._folder, name, outlive=False)
        self._say(f"{own_servers.TITLES[name]}: started again")
