"""The first system as it was: pika, one message at a time, sentence-transformers one text at a time, pymongo."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import pika
from bson import ObjectId
from pymongo import MongoClient
from sentence_transformers import SentenceTransformer

QUEUE, EXCHANGE, RESULTS = "encode-post-queue", "encode-post-exchange", "result-encode-post-queue"


def main() -> None:
    model = SentenceTransformer(sys.argv[1])
    posts = MongoClient(os.environ["MONGO_URI"])[os.environ["DATABASE_NAME"]]["posts"]
    channel = pika.BlockingConnection(pika.URLParameters(os.environ["RABBITMQ_URL"])).channel()

    def work(channel: Any, method: Any, _properties: Any, body: bytes) -> None:
        post = json.loads(body)
        vector = model.encode(post["content"]).tolist()
        posts.update_one({"_id": ObjectId(post["_id"])}, {"$set": {"embedding": vector}})
        answer = json.dumps({"id": post["_id"], "status": "success"})
        channel.basic_publish(EXCHANGE, RESULTS, answer, pika.BasicProperties(delivery_mode=2))
        channel.basic_ack(method.delivery_tag)

    channel.basic_qos(prefetch_count=1)
    channel.basic_consume(QUEUE, work)
    channel.start_consuming()


main()
