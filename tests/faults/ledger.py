"""The ledger: every message that the broker accepted, every answer that came, and what they add up to."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Literal

Fate = Literal["result", "dead"]


@dataclass(frozen=True, slots=True)
class Sent:
    """A message that the broker confirmed: from then on it must not be lost."""

    message_id: str
    worker: str
    body: Any
    expects: Fate | None
    """What must become of it. None: either, but not both."""
    accepted: float
    """time.monotonic() of the confirm."""

    def is_fate(self, fates: set[Fate]) -> bool:
        return fates == {self.expects} if self.expects else len(fates) == 1


@dataclass(frozen=True, slots=True)
class Answer:
    worker: str
    fate: Fate
    message_id: str
    body: bytes
    headers: dict[str, Any]
    received: float


@dataclass
class Ledger:
    """Written by the producer's and the collector's threads."""

    sent: dict[str, Sent] = field(default_factory=dict)
    unsure: set[str] = field(default_factory=set)
    """Published without a confirm (the broker went meanwhile): these may be answered or not."""
    answers: list[Answer] = field(default_factory=list)
    _answered: dict[str, Answer] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def accept(self, sent: Sent) -> None:
        with self._lock:
            self.sent[sent.message_id] = sent

    def doubt(self, message_id: str) -> None:
        with self._lock:
            self.unsure.add(message_id)

    def answer(self, answer: Answer) -> None:
        with self._lock:
            self.answers.append(answer)
            self._answered.setdefault(answer.message_id, answer)

    def unanswered(self) -> list[Sent]:
        with self._lock:
            return [sent for sent in self.sent.values() if sent.message_id not in self._answered]

    def first_answer(self, message_id: str) -> Answer | None:
        return self._answered.get(message_id)

    def answered_since(self, worker: str, since: float) -> float | None:
        """When the first message that was accepted after ``since`` was answered."""
        with self._lock:
            times = [
                answer.received
                for answer in self._answered.values()
                if answer.worker == worker
                and (sent := self.sent.get(answer.message_id)) is not None
                and sent.accepted > since
            ]
        return min(times, default=None)

    def latencies(self, worker: str) -> list[tuple[float, float]]:
        """(accepted, seconds until the first answer) of every message to ``worker``."""
        with self._lock:
            return [
                (sent.accepted, self._answered[sent.message_id].received - sent.accepted)
                for sent in self.sent.values()
                if sent.worker == worker and sent.message_id in self._answered
            ]

    def account(self) -> Account:
        """What the books say. Take it when nothing is on its way any more."""
        with self._lock:
            count = Counter(answer.message_id for answer in self.answers)
            fates: dict[str, set[Fate]] = {}
            for answer in self.answers:
                fates.setdefault(answer.message_id, set()).add(answer.fate)
            return Account(
                accepted=len(self.sent),
                lost=sorted(set(self.sent) - set(count)),
                unknown=sorted(set(count) - set(self.sent) - self.unsure),
                misjudged=sorted(
                    f"{sent.worker} {message_id}: expected {sent.expects or 'one'}, got {sorted(fates[message_id])}"
                    for message_id, sent in self.sent.items()
                    if message_id in fates and not sent.is_fate(fates[message_id])
                ),
                results=sum(1 for answer in self.answers if answer.fate == "result"),
                dead=sum(1 for answer in self.answers if answer.fate == "dead"),
                duplicates=sum(times - 1 for times in count.values()),
            )


@dataclass(frozen=True)
class Account:
    """The accounting at the end of a run."""

    accepted: int
    lost: list[str]
    """Accepted, and neither a result nor a dead letter."""
    unknown: list[str]
    """Answers whose message_id is nobody's: duplicates that could not be recognised."""
    misjudged: list[str]
    """Good messages among the dead letters, bad ones with a result, or both for one message."""
    results: int
    dead: int
    duplicates: int
    """Answers beyond the first, all with the message_id of their message."""

    def violations(self) -> list[str]:
        return [
            *(f"lost: {message_id}" for message_id in self.lost),
            *(f"an answer to nothing: {message_id}" for message_id in self.unknown),
            *self.misjudged,
        ]


def wait_for(condition: Any, timeout_seconds: float, what: str, every_seconds: float = 0.1) -> Any:
    """Ask until the answer is true; fail with ``what`` when it does not come in time."""
    deadline = time.monotonic() + timeout_seconds
    while not (answer := condition()):
        if time.monotonic() >= deadline:
            raise AssertionError(f"not within {timeout_seconds:.0f} s: {what() if callable(what) else what}")
        time.sleep(every_seconds)
    return answer
