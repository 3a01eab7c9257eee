"""What no worker can be cheaper than: aiormq alone, each message consumed, answered with a confirm, acked."""

from __future__ import annotations

import asyncio
import os

import aiormq
from aiormq.abc import DeliveredMessage
from pamqp.commands import Basic

QUEUE, EXCHANGE, RESULTS = "encode-post-queue", "encode-post-exchange", "result-encode-post-queue"


async def main() -> None:
    connection = await aiormq.connect(os.environ["RABBITMQ_URL"])
    channel = await connection.channel(publisher_confirms=True)
    await channel.basic_qos(prefetch_count=128)

    async def work(message: DeliveredMessage) -> None:
        properties = Basic.Properties(delivery_mode=2, content_type="application/json")
        await channel.basic_publish(message.body, exchange=EXCHANGE, routing_key=RESULTS, properties=properties)
        await channel.basic_ack(message.delivery.delivery_tag or 0, wait=False)

    await channel.basic_consume(QUEUE, work)
    await asyncio.Event().wait()


asyncio.run(main())
