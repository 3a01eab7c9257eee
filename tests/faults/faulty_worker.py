"""A real worker, with real model and connections, that fails where it is told to.

``python -m faults.faulty_worker WORKER``, and in ``FAULTS_AT``: a JSON object of faults.

- ``{"kill": "commit", "after": 3}``: SIGKILL itself around its third batch: ``infer`` (in the model), ``commit`` (just
  before the write), ``written`` (between write and publish), ``ack`` (between the result's confirm and the ack)
- ``{"raise": "MARK"}``, ``{"memory": "MARK"}``, ``{"hang": "MARK"}``: the model raises, runs out of memory, or never
  returns where a text holds MARK
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from feedmill.broker.settle import Settler
from feedmill.instruments import Instruments
from feedmill.worker import WorkerKind, run_worker

_FAULTS: dict[str, Any] = json.loads(os.environ.get("FAULTS_AT", "{}"))


class _Countdown:
    """Kills the process the n-th time that it passes ``point``."""

    def __init__(self, point: str, after: int) -> None:
        self._point = point
        self._left = after

    def passes(self, point: str) -> None:
        if point == self._point:
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)


_countdown = _Countdown(_FAULTS.get("kill", ""), int(_FAULTS.get("after", 1)))


class _Faulty:
    """The worker's own handler, with faults around its steps."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def infer(self, batch: Sequence[Any]) -> Any:
        _countdown.passes("infer")
        for work in batch:
            _model_fault(repr(work))
        return await self._inner.infer(batch)

    async def commit(self, batch: Sequence[Any]) -> Any:
        _countdown.passes("commit")
        results = await self._inner.commit(batch)
        _countdown.passes("written")
        return results


def _model_fault(text: str) -> None:
    if (mark := _FAULTS.get("raise")) and mark in text:
        raise RuntimeError("the model failed: on demand")
    if (mark := _FAULTS.get("memory")) and mark in text:
        raise MemoryError("on demand")
    if (mark := _FAULTS.get("stall")) and mark in text:
        time.sleep(3600)  # on the event loop itself


def _hang(text: str) -> bool:
    return bool(_FAULTS.get("hang")) and _FAULTS["hang"] in text


def _kill_before_ack() -> None:
    """The one reach into the inside: the moment between a result's confirm and the ack is nowhere else to be had."""
    ack = Settler.ack

    async def passing(delivery: Any) -> None:
        _countdown.passes("ack")
        await ack(delivery)

    Settler.ack = staticmethod(passing)  # type: ignore[method-assign,assignment]


def main() -> None:
    name = sys.argv.pop(1)
    kind: WorkerKind = importlib.import_module(f"feedmill_{name}.worker").KIND
    _kill_before_ack()

    @asynccontextmanager
    async def open_handler(instruments: Instruments) -> AsyncIterator[Any]:
        async with kind.open_handler(instruments) as inner:
            faulty = _Faulty(inner)
            if _FAULTS.get("hang"):
                _hang_in_model(inner)
            yield faulty

    run_worker(replace(kind, open_handler=open_handler))


def _hang_in_model(inner: Any) -> None:
    """A step that never returns, as a model's thread that hangs: the event loop goes on."""
    infer = inner.infer

    async def hanging(batch: Sequence[Any]) -> Any:
        import asyncio

        if any(_hang(repr(work)) for work in batch):
            await asyncio.to_thread(time.sleep, 3600)
        return await infer(batch)

    inner.infer = hanging


if __name__ == "__main__":
    main()
