"""taskiq-aio-pika: an asynchronous task, the blocking work in a thread."""

from __future__ import annotations

import asyncio
import json
import os

import aio_pika
import job
from taskiq_aio_pika import AioPikaBroker

broker = AioPikaBroker(os.environ["RABBITMQ_URL"])
work = job.load()


@broker.task(task_name="encode")
async def encode(post: dict[str, str]) -> None:
    answer = json.dumps(await asyncio.to_thread(work, post)).encode()
    exchange = await broker.write_channel.get_exchange(job.EXCHANGE, ensure=False)
    await exchange.publish(aio_pika.Message(answer, delivery_mode=2), job.RESULTS)
