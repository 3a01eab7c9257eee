"""The job that every peer does, as its users would write it: sentence-transformers and pymongo, one post at a time.

With ``BENCH_JOB=nothing`` neither costs anything: what is left is the framework.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

EXCHANGE, RESULTS = "encode-post-exchange", "result-encode-post-queue"


def load() -> Callable[[dict[str, str]], dict[str, Any]]:
    """A function that encodes a post, stores its vector, and gives the answer to publish."""
    if os.environ.get("BENCH_JOB") == "nothing":
        return lambda post: {"id": post["_id"], "status": "success"}
    from bson import ObjectId
    from pymongo import MongoClient
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(os.environ["BENCH_MODEL"])
    posts = MongoClient[dict[str, Any]](os.environ["MONGO_URI"])[os.environ["DATABASE_NAME"]]["posts"]

    def encode(post: dict[str, str]) -> dict[str, Any]:
        vector = model.encode(post["content"], show_progress_bar=False).tolist()
        posts.update_one({"_id": ObjectId(post["_id"])}, {"$set": {"embedding": vector}})
        return {"id": post["_id"], "status": "success"}

    return encode
