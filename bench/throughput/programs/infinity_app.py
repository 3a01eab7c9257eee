"""infinity-emb's engine, which batches by itself, behind a thin consumer on aio-pika and motor."""

from __future__ import annotations

import asyncio
import json
import os

import aio_pika
import job
from bson import ObjectId
from infinity_emb import AsyncEmbeddingEngine, EngineArgs
from motor.motor_asyncio import AsyncIOMotorClient


async def main() -> None:
    posts = AsyncIOMotorClient(os.environ["MONGO_URI"])[os.environ["DATABASE_NAME"]]["posts"]
    arguments = EngineArgs(
        model_name_or_path=os.environ["BENCH_MODEL"], engine="torch", device="cpu", bettertransformer=False
    )
    engine = AsyncEmbeddingEngine.from_args(arguments)
    async with engine:
        connection = await aio_pika.connect_robust(os.environ["RABBITMQ_URL"])
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=128)
        exchange = await channel.get_exchange(job.EXCHANGE)

        async def work(message: aio_pika.abc.AbstractIncomingMessage) -> None:
            async with message.process():
                post = json.loads(message.body)
                (vector,), _ = await engine.embed([post["content"]])
                await posts.update_one({"_id": ObjectId(post["_id"])}, {"$set": {"embedding": vector.tolist()}})
                answer = json.dumps({"id": post["_id"], "status": "success"}).encode()
                await exchange.publish(aio_pika.Message(answer, delivery_mode=2), job.RESULTS)

        await (await channel.get_queue("encode-post-queue")).consume(work)
        await asyncio.Event().wait()


asyncio.run(main())
