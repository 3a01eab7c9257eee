"""A flood of hostile messages with good ones in between: all answered or buried, memory flat, no bug in any log.

Every test run sends 2,000; `make hostile` sends 100,000 (HOSTILE).
"""

from __future__ import annotations

import os
from collections import Counter

from pymongo.database import Database

from faults.hostile import GOOD_EVERY, flood
from faults.ledger import Ledger, wait_for
from faults.traffic import Collector
from faults.verdict import BUG_SIGNS
from faults.watch import Holdings
from feedmill.broker.letters import REASON
from support.amqp import Client
from support.workers import Servers, WorkerProcess

COUNT = int(os.environ.get("HOSTILE", "2000"))
SEED = int(os.environ.get("FAULTS_SEED", "20261124"))
WARM_UP_SHARE = 0.2
RSS_GROWTH_MB = 100.0
FILES_GROWTH = 10
NAMES = ("toxic", "encode", "hint")


def test_hostile_messages_harm_nothing(
    shared_servers: Servers, workers: dict[str, WorkerProcess], client: Client, database: Database
) -> None:
    before = {name: process.log.stat().st_size for name, process in workers.items()}
    made = {name: database[name].count_documents({}) for name in ("comments", "posts")}
    ledger = Ledger()
    collector = Collector(shared_servers.rabbit_url, ledger, NAMES)
    collector.start()
    warm: dict[str, Holdings] = {}

    def watch(sent: int) -> None:
        # No faster than they are taken: a queue of everything would measure the broker.
        wait_for(lambda: len(ledger.unanswered()) < 5_000, 300, "the workers do not keep up", 0.5)
        print(f"{sent} of {COUNT} sent, {len(ledger.unanswered())} open", flush=True)  # noqa: T201
        assert all(process.get("/livez")[0] == 200 for process in workers.values()), f"not live after {sent}"
        if not warm and sent >= COUNT * WARM_UP_SHARE:
            warm.update({name: Holdings.of(process.process.pid) for name, process in workers.items()})

    try:
        flood(shared_servers.rabbit_url, ledger, COUNT, SEED, watch)
        wait_for(lambda: not ledger.unanswered(), 300, lambda: f"{len(ledger.unanswered())} messages have no answer")
    finally:
        collector.stop()
    account = ledger.account()
    assert account.accepted == COUNT + COUNT // GOOD_EVERY
    assert account.violations() == []
    reasons = Counter(answer.headers.get(REASON) for answer in ledger.answers if answer.fate == "dead")
    print(f"\n{account.accepted} accepted, {account.results} results, dead letters: {dict(reasons)}")  # noqa: T201
    assert "internal_error" not in reasons
    for name, process in workers.items():
        now = Holdings.of(process.process.pid)
        print(f"{name}: {warm[name]} -> {now}")  # noqa: T201
        assert now.rss_mb - warm[name].rss_mb < RSS_GROWTH_MB
        assert now.files - warm[name].files <= FILES_GROWTH
        told = process.log.read_bytes()[before[name] :].decode(errors="replace").splitlines()
        assert [line[:1500] for line in told if any(sign in line for sign in BUG_SIGNS)] == []
    # A field or an id that reached the database as a query, or an upsert, would have changed or made documents.
    for collection, count in made.items():
        assert database[collection].count_documents({}) == count
