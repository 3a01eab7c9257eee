"""Routing between two real toxic workers: exact shares, a candidate that dies, an abort, a promotion, a shadow.

Told apart by their models' names: the candidate has a copy of the default model in a folder of its own.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pymongo
import pytest

import feedmill_toxic
from feedmill.contract import TOXIC
from feedmill.routing import Routing, bucket
from support.amqp import Client, connect, poll
from support.workers import Servers, WorkerProcess, worker

MESSAGES = 10_000
WAIT_SECONDS = 240.0
# Most are links alone, which are clean without a model call: the way through the worker is the same, and quick.
TEXTS = ("you are an idiot", "what a lovely day", *(f"https://example.com/{number}" for number in range(14)))
CANDIDATE = "candidate-model"


@dataclass
class Feed:
    """Comments sent so far, and the answers and documents that came of them."""

    client: Client
    comments: Any
    sent: list[str] = field(default_factory=list)
    answers: dict[str, list[str]] = field(default_factory=dict)
    """For each comment the models that answered it, in the order of the answers' ids (equal ids count once)."""
    _ids: set[str] = field(default_factory=set)

    def send(self, count: int) -> list[str]:
        ids = [f"comment-{len(self.sent) + number}" for number in range(count)]
        self.comments.insert_many([{"_id": identifier} for identifier in ids])
        for number, identifier in enumerate(ids):
            body = {"_id": identifier, "content": TEXTS[number % len(TEXTS)]}
            self.client.publish(TOXIC.exchange, TOXIC.queue, body, delivery_mode=2)
        self.sent += ids
        return ids

    def collect(self) -> bool:
        """Take what is answered; whether everything is."""
        while (letter := self.client.get(TOXIC.result_queue)) is not None:
            if letter.properties.message_id in self._ids:
                continue  # a redelivery's: consumers drop it by its id
            self._ids.add(letter.properties.message_id)
            answer = letter.json
            self.answers.setdefault(answer["commentId"], []).append(answer["model"])
        return len(self.answers) == len(self.sent)

    def until_answered(self) -> None:
        assert poll(self.collect, WAIT_SECONDS, 0.1), f"{len(self.answers)} of {len(self.sent)} answered"

    def stored(self) -> Counter[str]:
        """How many comments each model judged last, by the models' names without their revisions."""
        return Counter(
            document["toxicity"]["model"].partition("@")[0]
            for document in self.comments.find({"toxicity": {"$exists": 1}})
        )


def expected_share(ids: list[str], percent: float) -> int:
    routing = Routing("share", percent)
    return sum(routing.takes(bucket({"_id": identifier}, b"")) for identifier in ids)


@contextmanager
def feed(servers: Servers) -> Iterator[Feed]:
    database: pymongo.MongoClient = pymongo.MongoClient(servers.mongo_uri)
    try:
        with connect(servers.rabbit_url) as client:
            yield Feed(client, database[servers.database].comments)
    finally:
        database.close()


@dataclass
class Switch:
    """The routing file, and the stable worker that follows it."""

    path: Path
    generation: int = 0

    def set(self, stable: WorkerProcess, mode: str, share: float = 0.0) -> None:
        self.generation += 1
        temporary = self.path.with_suffix(".new")
        temporary.write_text(json.dumps({"mode": mode, "share": share, "generation": self.generation}))
        temporary.replace(self.path)
        assert poll(lambda: stable.metric("feedmill_routing_generation") == self.generation)


@pytest.fixture
def candidate_model(tmp_path: Path) -> str:
    folder = tmp_path / CANDIDATE
    shutil.copytree(Path(feedmill_toxic.__file__).parent / "default_model", folder)
    return f"file://{folder}"


def drain(servers: Servers, folder: Path) -> dict[str, int]:
    """The command that the operator runs as a Job."""
    environment = {"PATH": "", **servers.environment(), "FEEDMILL_TERMINATION_LOG": str(folder / "last-word")}
    (folder / "last-word").touch()
    done = subprocess.run(
        [sys.executable, "-m", "feedmill.drain", "--worker", "toxic", "--timeout", "60"],
        env=environment, cwd=folder, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert (folder / "last-word").read_text() == done.stdout.strip()
    answer: dict[str, int] = json.loads(done.stdout)
    return answer


def test_a_share_a_dead_candidate_an_abort_and_a_promotion_lose_and_double_nothing(
    servers: Servers, tmp_path: Path, candidate_model: str, record_property: Any
) -> None:
    switch = Switch(tmp_path / "routing.json")
    stable_settings = {"FEEDMILL_ROUTING_FILE": switch.path, "FEEDMILL_ROUTING_POLL_SECONDS": 0.1}
    as_candidate = {"FEEDMILL_ROLE": "candidate", "FEEDMILL_MODEL": candidate_model}
    with feed(servers) as it:
        with worker("toxic", servers, tmp_path, **stable_settings) as stable:
            with worker("toxic", servers, tmp_path, **as_candidate) as candidate:
                stable.until_ready()
                candidate.until_ready()
                switch.set(stable, "share", 20)
                first = it.send(5000)
                it.until_answered()
                handed = stable.metric("feedmill_messages_settled_total", outcome="handed_over")
                assert handed == expected_share(first, 20)
                assert it.stored()[CANDIDATE] == handed
                error = abs(handed / 5000 - 0.2)
                record_property("share_error", error)
                assert error <= 4 * (0.2 * 0.8 / 5000) ** 0.5
                # More ids, never others: the same ids again would go where they went. Then it dies in the middle.
                switch.set(stable, "share", 50)
                it.send(2000)
                assert poll(lambda: candidate.metric("feedmill_messages_received_total") > handed + 200)
                candidate.kill()
            it.send(1000)
            assert poll(lambda: it.client.count(TOXIC.queue) == 0 and stable.metric("feedmill_messages_in_flight") == 0)
            it.collect()
            assert it.client.count(TOXIC.candidate_queue) > 0
            # Abort: what the candidate left goes back, and the stable worker answers it.
            switch.set(stable, "off")
            waiting = it.client.count(TOXIC.candidate_queue)
            assert drain(servers, tmp_path) == {"returned": waiting, "dropped": 0}
            it.until_answered()
            assert it.client.count(TOXIC.candidate_queue) == 0
            # Another try, promoted in the middle: the stable worker is replaced by one with the new model.
            with worker("toxic", servers, tmp_path, **as_candidate) as candidate:
                candidate.until_ready()
                switch.set(stable, "share", 100)
                it.send(2000)
                assert poll(lambda: candidate.metric("feedmill_messages_received_total") > 300)
                assert stable.terminate() == 0, stable.tail()
                promoted_settings = {**stable_settings, "FEEDMILL_MODEL": candidate_model}
                with worker("toxic", servers, tmp_path, **promoted_settings) as promoted:
                    promoted.until_ready()
                    switch.set(promoted, "off")
                    assert candidate.terminate() == 0, candidate.tail()
                    drain(servers, tmp_path)
                    it.until_answered()
        assert len(it.sent) == MESSAGES
        assert set(it.answers) == set(it.sent)
        assert it.client.count(TOXIC.dead_queue) == it.client.count(TOXIC.queue) == 0
        assert sum(it.stored().values()) == it.comments.count_documents({}) == MESSAGES


def test_a_shadow_judges_every_copy_and_touches_nothing(servers: Servers, tmp_path: Path, candidate_model: str) -> None:
    count = 400
    switch = Switch(tmp_path / "routing.json")
    stable_settings = {"FEEDMILL_ROUTING_FILE": switch.path, "FEEDMILL_ROUTING_POLL_SECONDS": 0.1}
    as_shadow = {"FEEDMILL_ROLE": "shadow", "FEEDMILL_MODEL": candidate_model, "FEEDMILL_THRESHOLD": 1}
    with (
        feed(servers) as it,
        worker("toxic", servers, tmp_path, **stable_settings) as stable,
        worker("toxic", servers, tmp_path, **as_shadow) as shadow,
    ):
        stable.until_ready()
        shadow.until_ready()
        switch.set(stable, "mirror")
        it.send(count)
        it.until_answered()
        assert poll(lambda: shadow.metric("feedmill_shadow_compared_total") == count)
        stable_toxic = stable.metric("feedmill_verdicts_total", verdict="toxic")
        assert 0 < stable_toxic < count
        # The shadow's threshold lets nothing be toxic, with the same scores: it differs just there.
        assert shadow.metric("feedmill_shadow_compared_total", verdict="different") == stable_toxic
        assert shadow.metric("feedmill_shadow_score_drift_sum") < 0.01 * count
        assert shadow.metric("feedmill_verdicts_total", verdict="clean") == count
        assert CANDIDATE not in it.stored()
        assert {len(models) for models in it.answers.values()} == {1}
        assert it.client.count(TOXIC.result_queue) == 0
        # The shadow stops, copies stay behind: they are dropped, for the stable worker has answered them.
        assert shadow.terminate() == 0, shadow.tail()
        it.send(50)
        it.until_answered()
        assert drain(servers, tmp_path) == {"returned": 0, "dropped": 50}
