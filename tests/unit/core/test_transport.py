"""Frames written one by one go out together, in order, and nothing stays behind."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from feedmill.broker.transport import MAX_GATHERED_BYTES, GatheringConnection, GatheringWriter


class Wire(asyncio.WriteTransport):
    """Notes what each system call would send."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[bytes] = []
        self.is_closed = False

    def write(self, data: Any) -> None:
        assert not self.is_closed, "written after it was closed"
        self.sent.append(bytes(data))

    def is_closing(self) -> bool:
        return self.is_closed

    def close(self) -> None:
        self.is_closed = True

    def write_eof(self) -> None:
        self.sent.append(b"<end>")


@pytest.fixture
async def wire() -> Wire:
    return Wire()


@pytest.fixture
async def writer(wire: Wire) -> GatheringWriter:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(loop=loop)
    return GatheringWriter(wire, asyncio.StreamReaderProtocol(reader, loop=loop), reader, loop)


async def turns(count: int = 4) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_what_is_written_in_one_turn_is_one_system_call(wire: Wire, writer: GatheringWriter) -> None:
    for part in (b"a", b"b", b"c"):
        writer.write(part)
    assert wire.sent == []
    await turns()
    assert wire.sent == [b"abc"]


async def test_turns_right_behind_each_other_are_gathered(wire: Wire, writer: GatheringWriter) -> None:
    for part in (b"a", b"b", b"c"):
        writer.write(part)
        await turns(1)
    await turns()
    assert wire.sent == [b"abc"]
    writer.write(b"d")
    await turns()
    assert wire.sent == [b"abc", b"d"]


async def test_a_large_amount_does_not_wait(wire: Wire, writer: GatheringWriter) -> None:
    writer.write(b"x" * MAX_GATHERED_BYTES)
    assert len(wire.sent) == 1
    await turns()
    assert len(wire.sent) == 1


async def test_drain_and_close_send_first(wire: Wire, writer: GatheringWriter) -> None:
    writer.write(b"a")
    await writer.drain()
    assert wire.sent == [b"a"]
    writer.write(b"b")
    writer.write_eof()
    writer.write(b"c")
    writer.close()
    assert wire.sent == [b"a", b"b", b"<end>", b"c"]
    await turns()
    assert wire.is_closed


@given(st.lists(st.one_of(st.binary(min_size=1, max_size=8), st.just(None))))
def test_every_byte_is_sent_once_and_in_order(steps: Sequence[bytes | None]) -> None:
    """``None`` is a turn of the loop in between."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        wire, reader = Wire(), asyncio.StreamReader(loop=loop)
        writer = GatheringWriter(wire, asyncio.StreamReaderProtocol(reader, loop=loop), reader, loop)
        for step in steps:
            if step is None:
                await asyncio.sleep(0)
            else:
                writer.write(step)
        await turns()
        assert b"".join(wire.sent) == b"".join(step for step in steps if step is not None)

    asyncio.run(main())


@pytest.mark.filterwarnings("error")
async def test_a_connection_that_nobody_closed_is_dropped_whatever_thread_collects_it() -> None:
    """Found by both servers killed: the model's thread collected what the loop had given up."""
    aborted = asyncio.Event()

    class Transport:
        def abort(self) -> None:
            aborted.set()

    kept: list[Any] = [GatheringConnection(URL("amqp://nowhere/"))]
    kept[0]._factory.transport = Transport()
    thread = threading.Thread(target=kept.clear)
    thread.start()
    thread.join()
    await asyncio.wait_for(aborted.wait(), 10)
