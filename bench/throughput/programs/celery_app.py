"""Celery: its default pool (a process a core), acks after the work."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import job
from celery import Celery
from celery.signals import worker_process_init

app = Celery("bench", broker=os.environ["RABBITMQ_URL"])
app.conf.update(task_acks_late=True, task_default_queue="celery-encode", task_ignore_result=True)
work: list[Callable[[dict[str, str]], dict[str, Any]]] = []


@worker_process_init.connect
def load(**_: object) -> None:
    work.append(job.load())


@app.task(name="encode")
def encode(post: dict[str, str]) -> None:
    answer = work[0](post)
    with app.producer_pool.acquire() as producer:
        producer.publish(answer, exchange=job.EXCHANGE, routing_key=job.RESULTS, delivery_mode=2, serializer="json")
