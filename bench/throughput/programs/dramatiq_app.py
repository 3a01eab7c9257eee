"""Dramatiq: its defaults, which are a process a core and eight threads in each."""

from __future__ import annotations

import json
import os

import dramatiq
import job
import pika
from dramatiq.brokers.rabbitmq import RabbitmqBroker

broker = RabbitmqBroker(url=os.environ["RABBITMQ_URL"])
dramatiq.set_broker(broker)
work = job.load()


@dramatiq.actor(queue_name="dramatiq-encode")
def encode(post: dict[str, str]) -> None:
    answer = json.dumps(work(post))
    broker.channel.basic_publish(job.EXCHANGE, job.RESULTS, answer, pika.BasicProperties(delivery_mode=2))
