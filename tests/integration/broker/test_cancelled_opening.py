"""A session that is cancelled while it opens is cancelled, wherever it was, and leaves nothing open."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

from faults.proxy import TcpProxy
from feedmill.broker.session import Session
from feedmill.settings import BrokerSettings
from feedmill_local.rabbitmq import RabbitNode
from support.amqp import poll
from support.echo import ROUTE

STRIDE = 5
"""Every so many turns of the event loop, of some 600 that opening takes."""


async def cancel_after(turns: int, settings: BrokerSettings) -> bool:
    """Cancel an opening after so many turns of the loop; answer whether it was cancelled, or open by then."""
    opening = asyncio.create_task(Session.open(settings, ROUTE))
    for _ in range(turns):
        await asyncio.sleep(0)
    if not opening.cancel():
        await opening.result().close()
        return False
    await asyncio.wait([opening])
    assert opening.cancelled(), f"after {turns} turns the cancellation was lost"
    return True


async def test_wherever_it_is_cancelled(rabbit_url: str, rabbit_node: RabbitNode) -> None:
    turns = 0
    while await cancel_after(turns, BrokerSettings(url=rabbit_url)):
        turns += STRIDE
    assert turns > 20 * STRIDE
    left = asyncio.all_tasks() - {asyncio.current_task()}
    if left:
        await asyncio.wait(left, timeout=10)
    assert not [task for task in left if not task.done()]
    vhost = urlsplit(rabbit_url).path.strip("/")
    assert await asyncio.to_thread(poll, lambda: vhost not in rabbit_node.ctl("list_connections", "vhost").split())


async def test_at_a_broker_that_says_nothing(rabbit_url: str) -> None:
    parts = urlsplit(rabbit_url)
    with TcpProxy(parts.port or 5672) as proxy:
        proxy.stall("down")
        url = parts._replace(netloc=parts.netloc.replace(f":{parts.port}", f":{proxy.port}")).geturl()
        opening = asyncio.create_task(Session.open(BrokerSettings(url=url), ROUTE))
        async with asyncio.timeout(60):
            await asyncio.to_thread(poll, lambda: proxy.connections)
            opening.cancel()
            await asyncio.wait([opening])
        assert opening.cancelled()
