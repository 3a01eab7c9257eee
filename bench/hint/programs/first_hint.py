"""The first system's hint as it was: pika, one message at a time, every post fetched for each, cosines in torch."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

import pika
import torch
from bson import ObjectId
from pymongo import MongoClient

QUEUE, EXCHANGE, RESULTS = "hint-post-queue", "hint-post-exchange", "result-hint-post-queue"
TOP_K = 5


def main() -> None:
    posts: Any = MongoClient(os.environ["MONGO_URI"])[os.environ["DATABASE_NAME"]]["posts"]
    channel = pika.BlockingConnection(pika.URLParameters(os.environ["RABBITMQ_URL"] + "?heartbeat=0")).channel()

    def work(channel: Any, method: Any, _properties: Any, body: bytes) -> None:
        asking = ObjectId(json.loads(body)["_id"])
        began = time.perf_counter()
        everything = list(posts.find({"embedding": {"$exists": True}}))
        fetched = time.perf_counter()
        vector = torch.tensor(next(post["embedding"] for post in everything if post["_id"] == asking))
        others = [post for post in everything if post["_id"] != asking]
        matrix = torch.tensor([post["embedding"] for post in others])
        best = torch.topk(torch.nn.functional.cosine_similarity(matrix, vector.unsqueeze(0)), TOP_K)
        found = [
            {"post": {"_id": str(others[place]["_id"]), "content": others[place]["content"]}, "score": score}
            for score, place in zip(best.values.tolist(), best.indices.tolist(), strict=True)
        ]
        computed = time.perf_counter()
        print(f"fetch {fetched - began:.3f} compute {computed - fetched:.3f}", file=sys.stderr, flush=True)
        answer = json.dumps({"status": "success", "id": str(asking), "homologous_posts": found})
        channel.basic_publish(EXCHANGE, RESULTS, answer, pika.BasicProperties(delivery_mode=2))
        channel.basic_ack(method.delivery_tag)

    channel.basic_qos(prefetch_count=1)
    channel.basic_consume(QUEUE, work)
    channel.start_consuming()


main()
