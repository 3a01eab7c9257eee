"""A site that is alive while a test runs: it publishes and takes answers the whole time, in a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from support.amqp import Client, connect, poll
from support.workers import Servers


@contextmanager
def living(
    servers: Servers,
    publish: Callable[[Client], None],
    collect: Callable[[Client], bool],
    pause_seconds: float,
    wait_seconds: float,
) -> Iterator[None]:
    """Until the end of the block. ``collect`` takes what is answered and tells whether everything is, which is waited
    for in the end. What fails in the thread fails here."""
    stop = threading.Event()
    problems: list[BaseException] = []

    def live() -> None:
        try:
            with connect(servers.rabbit_url) as client:
                while not stop.wait(pause_seconds):
                    publish(client)
                    collect(client)
                assert poll(lambda: collect(client), wait_seconds), "not everything was answered"
        except BaseException as error:
            problems.append(error)

    thread = threading.Thread(target=live)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    assert not problems, problems[0]
