"""A classifier's rollouts from beginning to end: the operator on the metrics of real workers, live comments.

Kubernetes alone is emulated (``support.kube``, ``support.node``).
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pymongo
import pytest

import feedmill_toxic
from feedmill.contract import TOXIC
from support.amqp import Client, connect
from support.kube import NAMESPACE, World, deployment, rollout, world
from support.node import Node, node
from support.site import living
from support.story import WAIT_SECONDS, Story
from support.workers import Servers

PAUSE_SECONDS = 0.05
TEXTS = ("you are an idiot", *["what a lovely day"] * 7)


@dataclass
class Site:
    """It publishes comments, and counts the answers to each."""

    comments: Any
    sent: list[str] = field(default_factory=list)
    answers: Counter[str] = field(default_factory=Counter)
    """By comment; answers with the same id count once."""
    _ids: set[str] = field(default_factory=set)

    def send(self, client: Client) -> None:
        identifier = f"comment-{len(self.sent)}"
        self.comments.insert_one({"_id": identifier})
        body = {"_id": identifier, "content": TEXTS[len(self.sent) % len(TEXTS)]}
        client.publish(TOXIC.exchange, TOXIC.queue, body, delivery_mode=2)
        self.sent.append(identifier)

    def collect(self, client: Client) -> bool:
        """Take what is answered; whether everything is."""
        while (letter := client.get(TOXIC.result_queue)) is not None:
            if letter.properties.message_id not in self._ids:
                self._ids.add(letter.properties.message_id)
                self.answers[letter.json["commentId"]] += 1
        return len(self.answers) == len(self.sent)


@pytest.fixture
def comments(servers: Servers) -> Iterator[Any]:
    with pymongo.MongoClient[dict[str, Any]](servers.mongo_uri) as client:
        yield client[servers.database].comments


def install(it: World, machine: Node) -> None:
    body = deployment("toxic", replicas=1)
    container = body["spec"]["template"]["spec"]["containers"][0]
    container["env"] += [
        {"name": "FEEDMILL_ROUTING_FILE", "value": str(machine.mounted("shop-toxic-routing"))},
        {"name": "FEEDMILL_ROUTING_POLL_SECONDS", "value": "0.1"},
    ]
    container["envFrom"].append({"configMapRef": {"name": "shop-toxic-model-rollout", "optional": True}})
    it.put("deployments", body)
    it.put("configmaps", {"metadata": {"name": "shop-toxic-model", "namespace": NAMESPACE}, "data": {}})


async def test_a_bad_model_goes_back_a_good_one_is_promoted_and_every_comment_is_answered_once(
    kmock: Any, servers: Servers, tmp_path: Path, comments: Any, record_property: Any
) -> None:
    good = tmp_path / "good-model"
    shutil.copytree(Path(feedmill_toxic.__file__).parent / "default_model", good)
    analysis = {"interval": "3s", "minimumSamples": 10, "latencyRatio": 100, "labelDrift": 0.5}
    canary = [{"share": 30, "hold": "3s"}, {"share": 60, "hold": "3s"}]
    # It calls everything toxic, the good one an eighth: a dozen samples tell them apart beyond chance.
    bad = {"uri": good.as_uri(), "settings": {"FEEDMILL_THRESHOLD": "0"}}
    async with world(kmock) as it:
        with node(it, servers, tmp_path) as machine:
            install(it, machine)
            story = Story(it, "toxic", machine, lambda: None)
            await story.until(lambda: machine.is_ready("shop-toxic"))
            site = Site(comments)
            with living(servers, site.send, site.collect, PAUSE_SECONDS, WAIT_SECONDS):
                it.put("rollouts", rollout("toxic", model=bad, strategy={"canary": canary}, analysis=analysis))
                await story.until_phase("RollingBack")
                assert it.routing["mode"] == "off", "with the same look that saw it"
                await story.until_phase("Aborted")
                bad_lines = story.lines[:]
                models = {document["toxicity"]["model"] for document in comments.find({"toxicity": {"$exists": 1}})}
                assert len(models) == 2, "the candidate never judged anything"

                it.change(
                    "rollouts",
                    "toxic",
                    {"metadata": {"generation": 2}, "spec": {"model": {"uri": good.as_uri(), "settings": None}}},
                )
                await story.until_phase("Completed")
                served = len(site.answers)
                await story.until(lambda: len(site.answers) > served + 20)
    record_property("bad", bad_lines)
    record_property("good", story.lines[len(bad_lines) :])
    record_property("comments", len(site.sent))
    assert set(site.answers) == set(site.sent)
    assert set(site.answers.values()) == {1}
    documents = list(comments.find())
    assert len(documents) == len(site.sent)
    assert all("toxicity" in document for document in documents)
    with connect(servers.rabbit_url) as client:
        for queue in (TOXIC.queue, TOXIC.candidate_queue, TOXIC.dead_queue):
            assert client.count(queue) == 0, queue
