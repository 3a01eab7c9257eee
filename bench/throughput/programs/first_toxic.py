"""The first system's toxic worker: pika, one message at a time through transformers' pipeline, pymongo.

``first_toxic.py MODEL``: a sequence classifier, or a text-to-text model, which generates its label.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pika
import torch
from bson import ObjectId
from pymongo import MongoClient
from transformers import AutoModelForSeq2SeqLM, AutoModelForSequenceClassification, AutoTokenizer

QUEUE, EXCHANGE, RESULTS = "toxic-detect-queue", "toxic-detect-exchange", "result-detect-queue"


def load(path: str) -> Any:
    tokenizer = AutoTokenizer.from_pretrained(path)
    is_writer = json.loads((Path(path) / "config.json").read_text(encoding="utf-8"))["model_type"] == "t5"
    model = (AutoModelForSeq2SeqLM if is_writer else AutoModelForSequenceClassification).from_pretrained(path).eval()

    def judge(text: str) -> str:
        inputs = tokenizer(text, return_tensors="pt", truncation=True, max_length=256)
        with torch.inference_mode():
            if is_writer:
                written = model.generate(inputs["input_ids"], attention_mask=inputs["attention_mask"], max_new_tokens=4)
                return str(tokenizer.decode(written[0], skip_special_tokens=True))
            return str(model.config.id2label[int(model(**inputs).logits.argmax())])

    return judge


def main() -> None:
    judge = load(sys.argv[1])
    comments = MongoClient(os.environ["MONGO_URI"])[os.environ["DATABASE_NAME"]]["comments"]
    channel = pika.BlockingConnection(pika.URLParameters(os.environ["RABBITMQ_URL"])).channel()

    def work(channel: Any, method: Any, _properties: Any, body: bytes) -> None:
        comment = json.loads(body)
        label = judge(comment["content"])
        comments.update_one({"_id": ObjectId(comment["_id"])}, {"$set": {"isToxic": label == "toxic"}})
        answer = json.dumps({"commentId": comment["_id"], "result": label})
        channel.basic_publish(EXCHANGE, RESULTS, answer, pika.BasicProperties(delivery_mode=2))
        channel.basic_ack(method.delivery_tag)

    channel.basic_qos(prefetch_count=1)
    channel.basic_consume(QUEUE, work)
    channel.start_consuming()


main()
