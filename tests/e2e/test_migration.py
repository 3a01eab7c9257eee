"""An encoder's rollout from beginning to end: the operator's decisions, real workers, two real encoders, live posts.

Kubernetes alone is emulated (``support.kube``, ``support.node``). Both encoders' vectors have the same length, so that
nothing but the separation of spaces keeps a hint from comparing vectors of two models; every answer is checked against
the stored vectors of both.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pymongo
import pytest
from numpy.typing import NDArray

from feedmill.contract import ENCODE, HINT, SPACES_COLLECTION
from support.amqp import Client, connect, poll
from support.encoders import WORDS, random_encoder
from support.kube import NAMESPACE, World, deployment, rollout, world
from support.node import Node, node
from support.site import living
from support.story import WAIT_SECONDS, Story
from support.workers import Servers

OLD_POSTS = 150
PAUSE_SECONDS = 0.3
TOLERANCE = 3e-3
"""The index holds vectors in half precision."""

Vectors = dict[str, NDArray[np.float32]]


@dataclass
class Site:
    """A backend: it publishes posts, asks for hints, and keeps the answers."""

    posts: Any
    sent: list[str] = field(default_factory=list)
    encoded: Counter[str] = field(default_factory=Counter)
    """Answers for each post; those with the same id count once."""
    asked: int = 0
    hints: dict[str, Any] = field(default_factory=dict)
    """Answers by the number of the question."""
    _ids: set[str] = field(default_factory=set)
    _chance: random.Random = field(default_factory=lambda: random.Random(4))

    def post(self, client: Client) -> None:
        identifier = f"post-{len(self.sent)}"
        content = " ".join(self._chance.choices(WORDS, k=self._chance.randint(5, 12)))
        self.posts.insert_one({"_id": identifier, "content": content})
        client.publish(ENCODE.exchange, ENCODE.queue, {"_id": identifier, "content": content}, delivery_mode=2)
        self.sent.append(identifier)

    def ask(self, client: Client) -> None:
        if not self.encoded:
            return
        body = {"_id": self._chance.choice(list(self.encoded)), "top_k": 5}
        client.publish(HINT.exchange, HINT.queue, body, correlation_id=str(self.asked), delivery_mode=2)
        self.asked += 1

    def turn(self, client: Client) -> None:
        self.post(client)
        self.ask(client)

    def collect(self, client: Client) -> bool:
        """Take what is answered; whether everything is."""
        while (letter := client.get(ENCODE.result_queue)) is not None:
            if letter.properties.message_id not in self._ids:
                self._ids.add(letter.properties.message_id)
                self.encoded[letter.json["id"]] += 1
        while (letter := client.get(HINT.result_queue)) is not None:
            self.hints[letter.properties.correlation_id] = letter.json
        return len(self.encoded) == len(self.sent) and len(self.hints) == self.asked


def publish_old_posts(servers: Servers, site: Site) -> None:
    with connect(servers.rabbit_url) as client:
        for _ in range(OLD_POSTS):
            site.post(client)
        assert poll(lambda: site.collect(client), WAIT_SECONDS, 0.1)


def read_vectors(database: Any) -> dict[str, Vectors]:
    spaces = [document["_id"] for document in database[SPACES_COLLECTION].find() if "dimensions" in document]
    return {
        space: {
            entry["_id"]: np.frombuffer(bytes(entry["vector"])[2:], "<f4")
            for entry in database[f"post_embeddings.{space}"].find()
        }
        for space in spaces
    }


def remember(seen: dict[str, Vectors], database: Any) -> None:
    """Add what is stored now to ``seen``: all vectors that there ever were, by space."""
    for space, vectors in read_vectors(database).items():
        seen.setdefault(space, {}).update(vectors)


def space_of(hint: Any, seen: dict[str, Vectors]) -> str:
    """The space in which every score of this answer is the cosine of the two posts' vectors; "mixed" where none is."""

    def fits(vectors: Vectors) -> bool:
        own = vectors.get(hint["id"])
        return own is not None and all(
            (other := vectors.get(entry["post"]["_id"])) is not None
            and abs(float(own @ other) / float(np.linalg.norm(own) * np.linalg.norm(other)) - entry["score"])
            < TOLERANCE
            for entry in hint["homologous_posts"]
        )

    fitting = [space for space, vectors in seen.items() if fits(vectors)]
    return fitting[0] if len(fitting) == 1 else "mixed" if not fitting else "either"


@pytest.fixture
def database(servers: Servers) -> Iterator[Any]:
    with pymongo.MongoClient[dict[str, Any]](servers.mongo_uri) as client:
        yield client[servers.database]


def install(it: World, machine: Node) -> None:
    """What the chart installs of encode and hint, one pod each, and quick to look at what changes."""
    quick = {"FEEDMILL_SPACE_POLL_SECONDS": "0.2", "FEEDMILL_INDEX_POLL_SECONDS": "0.2"}
    routed = {
        "FEEDMILL_ROUTING_FILE": str(machine.mounted("shop-encode-routing")),
        "FEEDMILL_ROUTING_POLL_SECONDS": "0.1",
        "FEEDMILL_UPKEEP_LOOK_SECONDS": "1",
    }
    for name, settings in (("encode", routed), ("hint", quick)):
        body = deployment(name, replicas=1)
        container = body["spec"]["template"]["spec"]["containers"][0]
        container["env"] += [{"name": key, "value": value} for key, value in settings.items()]
        container["envFrom"].append({"configMapRef": {"name": f"shop-{name}-model-rollout", "optional": True}})
        it.put("deployments", body)
        it.put("configmaps", {"metadata": {"name": f"shop-{name}-model", "namespace": NAMESPACE}, "data": {}})


async def test_an_encoder_is_migrated_and_goes_back_and_no_hint_mixes_two_models(
    kmock: Any, servers: Servers, tmp_path: Path, database: Any, record_property: Any
) -> None:
    candidate = random_encoder(tmp_path / "another-encoder", dimensions=384)
    migrate = {"rate": 500, "coverage": 1, "keepOld": "3s"}
    analysis = {"interval": "2s", "minimumSamples": 5, "latencyRatio": 100}
    async with world(kmock) as it:
        with node(it, servers, tmp_path) as machine:
            install(it, machine)
            seen: dict[str, Vectors] = {}
            story = Story(it, "encode", machine, lambda: remember(seen, database))
            await story.until(lambda: all(machine.is_ready(name) for name in ("shop-encode", "shop-hint")))
            site = Site(database.posts)
            publish_old_posts(servers, site)
            with living(servers, site.turn, site.collect, PAUSE_SECONDS, WAIT_SECONDS):
                (old,) = read_vectors(database)
                wanted = {"model": {"uri": candidate.as_uri()}, "strategy": {"migrate": migrate}}
                it.put("rollouts", rollout("encode", **wanted, analysis=analysis))

                # A way back before the switch.
                await story.until_phase("Backfilling")
                story.say("abort")
                await story.until_phase("Aborted")
                assert active(database) == old
                assert it.routing["mode"] == "off"

                # A way back after the switch, while the stable worker is getting the new model.
                story.say("retry")
                await story.until_phase("Promoting")
                (new,) = read_vectors(database).keys() - {old}
                assert active(database) == new
                story.say("abort")
                await story.until_phase("Restoring")
                assert active(database) == old
                await story.until_phase("Aborted")
                assert set(read_vectors(database)[old]) >= set(site.encoded)

                # And all the way.
                story.say("retry")
                await story.until_phase("Completed")
                assert active(database) == new
                answered = len(site.hints)
                await story.until(lambda: len(site.hints) > answered + 10)
            # The site is quiet, the workers are still there.
            remember(seen, database)
            check_store(servers, database, site, new, seen[new])
    hints = Counter(space_of(hint, seen) for hint in site.hints.values() if hint["homologous_posts"])
    record_property("story", story.lines)
    record_property("hints", dict(hints))
    assert set(hints) == {old, new}, hints
    assert {hint["status"] for hint in site.hints.values()} == {"success"}
    assert set(site.encoded.values()) == {1}
    assert set(site.encoded) == set(site.sent)
    assert machine.commands[-1] == ["-m", "feedmill_encode", "spaces", "drop", old]
    assert any(entry.get("total", 0) >= OLD_POSTS for entry in story.progress)


def active(database: Any) -> str:
    return str(database[SPACES_COLLECTION].find_one({"_id": "active"})["space"])


def check_store(servers: Servers, database: Any, site: Site, new: str, vectors: Vectors) -> None:
    """One space is left, it holds every post's vector, and so does ``posts.embedding``."""
    assert list(read_vectors(database)) == [new]
    assert set(vectors) == set(site.sent)

    def is_copied() -> bool:
        posts = {post["_id"]: post["embedding"] for post in site.posts.find()}
        return all(np.array_equal(np.array(posts[name], np.float32), vectors[name]) for name in site.sent)

    assert poll(is_copied, WAIT_SECONDS, 0.5)
    with connect(servers.rabbit_url) as client:
        for queue in (ENCODE.queue, ENCODE.candidate_queue, ENCODE.dead_queue, HINT.queue, HINT.dead_queue):
            assert client.count(queue) == 0, queue
