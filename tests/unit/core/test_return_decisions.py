"""What the settler decides about messages that come back, against a model of a quorum queue that counts every return.

The model is the least friendly broker: 3.10 and 4.0 count a return by nack as well, and drop above the limit.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from feedmill.broker import letters
from feedmill.broker.settle import Settler
from feedmill.errors import MessageError, Reject, Suspect
from feedmill.settings import BrokerSettings
from support.fakes import ROUTE, FakeSession, make_delivery

LIMIT = 20
EVENTS = st.lists(st.sampled_from(["handed back", "lost"]), max_size=120)


@dataclass
class Queue:
    """One message, wherever it is."""

    settler: Settler
    session: FakeSession
    count: int = 0
    is_alone: bool = False
    fates: list[str] = field(default_factory=list)

    def deliver(self) -> Any:
        headers = {letters.DELIVERY_COUNT: self.count}
        redelivered = self.count > 0
        return make_delivery(session=self.session, headers=headers, redelivered=redelivered, is_alone=self.is_alone)

    async def hand_back(self) -> None:
        before = len(self.session.published)
        await self.settler.hand_back(self.deliver())
        self.count = 0 if len(self.session.published) > before else self.count + 1

    def judged(self) -> MessageError | None:
        """What happens to it when it is taken; it is moved where that is decided."""
        try:
            self.settler.check_returns(self.deliver())
        except Suspect as error:
            self.count, self.is_alone = 0, True
            return error
        except Reject as error:
            return error
        return None


def a_queue(max_returns: int) -> Queue:
    return Queue(Settler(BrokerSettings(max_returns=max_returns), ROUTE), FakeSession())


@given(st.integers(2, 15), st.integers(0, 200), st.booleans())
def test_handing_back_never_makes_a_message_suspect(max_returns: int, times: int, is_alone: bool) -> None:
    async def main() -> None:
        queue = a_queue(max_returns)
        queue.is_alone = is_alone
        for _ in range(times):
            await queue.hand_back()
            assert queue.judged() is None
            assert queue.count < max_returns

    asyncio.run(main())


@given(st.integers(2, 15), EVENTS)
def test_no_message_comes_near_the_brokers_limit(max_returns: int, events: list[str]) -> None:
    """Whatever mixture of lost sessions and hand-backs it goes through: it is moved, or a dead letter, before."""

    async def main() -> None:
        queue = a_queue(max_returns)
        for event in events:
            if isinstance(queue.judged(), Reject):
                assert queue.is_alone
                return
            assert queue.count < max_returns < LIMIT
            if event == "lost":
                queue.count += 1
            else:
                await queue.hand_back()

    asyncio.run(main())


@given(st.integers(2, 15))
def test_what_ends_every_worker_ends_so_many_and_no_more(max_returns: int) -> None:
    async def main() -> None:
        queue, deaths = a_queue(max_returns), 0
        while not isinstance(failure := queue.judged(), Reject):
            if failure is None:
                queue.count += 1
                deaths += 1
        assert deaths == 2 * max_returns

    asyncio.run(main())
