"""Results find their requests."""

from __future__ import annotations

import asyncio

import pytest

from feedmill.broker.errors import SessionLost
from feedmill.contract import TOXIC
from feedmill_local.client import Answer, Inbox, Request


@pytest.fixture
async def lost() -> asyncio.Future[SessionLost]:
    return asyncio.get_running_loop().create_future()


async def test_the_first_result_of_a_request_counts(lost: asyncio.Future[SessionLost]) -> None:
    heard: list[Answer] = []
    inbox = Inbox(heard.append)
    request = Request(TOXIC, b"{}")
    inbox.expect(request)

    inbox.receive("a stranger's", b"{}")
    inbox.receive(request.id, b'{"n": 1}')
    inbox.receive(request.id, b'{"n": 2}')

    assert await inbox.wait(1.0, lost)
    assert [answer.json() for answer in heard] == [{"n": 1}]
    assert inbox.answers[request.id].seconds >= 0
    assert inbox.pending == []


async def test_waiting_ends_when_no_further_result_comes(lost: asyncio.Future[SessionLost]) -> None:
    inbox = Inbox()
    answered, silent = Request(TOXIC, b"{}"), Request(TOXIC, b"{}")
    inbox.expect(answered)
    inbox.expect(silent)
    inbox.receive(answered.id, b"{}")
    assert not await inbox.wait(0.02, lost)
    assert inbox.pending == [silent]


async def test_a_lost_connection_ends_the_waiting(lost: asyncio.Future[SessionLost]) -> None:
    inbox = Inbox()
    inbox.expect(Request(TOXIC, b"{}"))
    waiting = asyncio.ensure_future(inbox.wait(60.0, lost))
    lost.set_result(SessionLost("connection lost"))
    with pytest.raises(SessionLost):
        await waiting


async def test_a_request_that_was_not_published_is_not_awaited(lost: asyncio.Future[SessionLost]) -> None:
    inbox = Inbox()
    request = Request(TOXIC, b"{}")
    inbox.expect(request)
    inbox.forget(request)
    assert await inbox.wait(60.0, lost)
