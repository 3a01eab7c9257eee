"""FastStream: a blocking handler, which it runs in its pool of threads."""

from __future__ import annotations

import os
from typing import Any

import job
from faststream import FastStream
from faststream.rabbit import Channel, RabbitBroker, RabbitExchange, RabbitQueue

broker = RabbitBroker(os.environ["RABBITMQ_URL"], default_channel=Channel(prefetch_count=8), log_level=40)
app = FastStream(broker)
exchange = RabbitExchange(job.EXCHANGE, durable=True)
work = job.load()


@broker.subscriber(RabbitQueue("encode-post-queue", durable=True), exchange)
@broker.publisher(routing_key=job.RESULTS, exchange=exchange, persist=True)
def encode(post: dict[str, str]) -> dict[str, Any]:
    return work(post)
