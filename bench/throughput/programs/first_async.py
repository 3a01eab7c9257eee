"""The first system after it went async: aio-pika and motor, the model on the event loop, one message at a time."""

from __future__ import annotations

import asyncio
import json
import os
import sys

import aio_pika
from bson import ObjectId
from motor.motor_asyncio import AsyncIOMotorClient
from sentence_transformers import SentenceTransformer

QUEUE, EXCHANGE, RESULTS = "encode-post-queue", "encode-post-exchange", "result-encode-post-queue"


async def main() -> None:
    model = SentenceTransformer(sys.argv[1])
    posts = AsyncIOMotorClient(os.environ["MONGO_URI"])[os.environ["DATABASE_NAME"]]["posts"]
    connection = await aio_pika.connect_robust(os.environ["RABBITMQ_URL"])
    channel = await connection.channel()
    await channel.set_qos(prefetch_count=1)
    exchange = await channel.get_exchange(EXCHANGE)
    queue = await channel.get_queue(QUEUE)
    async with queue.iterator() as messages:
        async for message in messages:
            async with message.process():
                post = json.loads(message.body)
                vector = model.encode(post["content"]).tolist()
                await posts.update_one({"_id": ObjectId(post["_id"])}, {"$set": {"embedding": vector}})
                answer = json.dumps({"id": post["_id"], "status": "success"}).encode()
                await exchange.publish(aio_pika.Message(answer, delivery_mode=2), RESULTS)


asyncio.run(main())
