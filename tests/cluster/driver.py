"""A producer and consumer inside the cluster: runs in a pod of the worker's image, given to python3 on standard input.

``send WORKER COUNT PREFIX`` publishes; ``collect WORKER COUNT PREFIX SECONDS`` takes results until each request has its
own, and prints how many had none, how many had two, and how many dead letters there are.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter

import aio_pika

from feedmill.broker import topology
from feedmill.broker.connect import connect
from feedmill.contract import ROUTES, Route
from feedmill.settings import BrokerSettings, read


async def send(channel: aio_pika.abc.AbstractChannel, route: Route, count: int, prefix: str) -> None:
    exchange = await channel.get_exchange(route.exchange)
    for start in range(0, count, 100):
        messages = [
            exchange.publish(
                aio_pika.Message(
                    json.dumps({"content": f"What a lovely day number {number}"}).encode(),
                    correlation_id=f"{prefix}-{number}",
                    message_id=f"{prefix}-{number}",
                    delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
                ),
                routing_key=route.queue,
            )
            for number in range(start, min(start + 100, count))
        ]
        await asyncio.gather(*messages)


async def collect(
    channel: aio_pika.abc.AbstractChannel, route: Route, count: int, prefix: str, seconds: float
) -> dict[str, int]:
    wanted = {f"{prefix}-{number}" for number in range(count)}
    seen: Counter[str] = Counter()
    deadline = time.monotonic() + seconds
    queue = await channel.get_queue(route.result_queue)
    while wanted - seen.keys() and time.monotonic() < deadline:
        message = await queue.get(no_ack=True, fail=False)
        if message is None:
            await asyncio.sleep(0.2)
        elif message.correlation_id in wanted:
            seen[message.correlation_id] += 1
    dead = await channel.declare_queue(route.dead_queue, passive=True)
    return {
        "missing": len(wanted - seen.keys()),
        "twice": sum(1 for times in seen.values() if times > 1),
        "dead": dead.declaration_result.message_count or 0,
    }


async def main(command: str, worker: str, count: str, prefix: str, seconds: str = "0") -> None:
    settings, route = read(BrokerSettings), ROUTES[worker]
    connection = await connect(settings, "e2e")
    async with connection:
        await topology.declare(connection, route, settings)
        channel = await connection.channel()
        if command == "send":
            await send(channel, route, int(count), prefix)
        else:
            print(json.dumps(await collect(channel, route, int(count), prefix, float(seconds))))


asyncio.run(main(*sys.argv[1:]))
