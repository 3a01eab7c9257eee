"""Which acknowledgements are sent, against a model of the broker."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from feedmill.broker.acks import Ack, AckLedger


class Channel:
    """What a broker does with acknowledgements, as AMQP 0-9-1 says; one of an unknown tag closes the channel."""

    def __init__(self) -> None:
        self.unsettled: set[int] = set()
        self.acked: set[int] = set()

    def ack(self, ack: Ack) -> None:
        assert ack.tag in self.unsettled, f"PRECONDITION_FAILED: unknown delivery tag {ack.tag}"
        covered = {tag for tag in self.unsettled if tag <= ack.tag} if ack.multiple else {ack.tag}
        self.unsettled -= covered
        self.acked |= covered


def ledger_of(*tags: int) -> AckLedger:
    ledger = AckLedger()
    for tag in tags:
        ledger.delivered(tag)
    return ledger


def test_a_batch_without_gaps_takes_one_acknowledgement() -> None:
    ledger = ledger_of(1, 2, 3, 4)
    assert ledger.acks([3, 1, 2]) == [Ack(3, multiple=True)]
    assert ledger.acks([4]) == [Ack(4, multiple=False)]
    assert len(ledger) == 0


def test_what_lies_above_an_unfinished_message_is_acknowledged_alone() -> None:
    ledger = ledger_of(1, 2, 3, 4, 5)
    assert ledger.acks([1, 2, 4, 5]) == [Ack(2, multiple=True), Ack(4, multiple=False), Ack(5, multiple=False)]
    assert ledger.acks([3]) == [Ack(3, multiple=False)]


def test_nothing_is_acknowledged_twice() -> None:
    ledger = ledger_of(1, 2)
    assert ledger.acks([1, 1]) == [Ack(1, multiple=False)]
    assert ledger.acks([1]) == []
    assert ledger.acks([7]) == []


def test_a_message_that_was_never_seen_is_never_covered() -> None:
    """The client library dropped the delivery with tag 2, say: the broker still waits for it."""
    ledger = ledger_of(1, 3, 4)
    assert ledger.acks([1, 3, 4]) == [Ack(1, multiple=False), Ack(3, multiple=False), Ack(4, multiple=False)]


@given(st.data())
def test_exactly_what_is_done_is_acknowledged(data: st.DataObject) -> None:
    """Deliveries, some never seen here, completions in any order and grouping, returns: as many as a channel has."""
    ledger, channel = AckLedger(), Channel()
    seen: list[int] = []
    done: set[int] = set()
    last = 0
    for step in data.draw(st.lists(st.sampled_from(["deliver", "miss", "finish", "return"]), max_size=60)):
        if step in {"deliver", "miss"}:
            last += 1
            channel.unsettled.add(last)
            if step == "deliver":
                ledger.delivered(last)
                seen.append(last)
        elif step == "finish" and seen:
            batch = data.draw(st.lists(st.sampled_from(seen), unique=True, min_size=1))
            seen = [tag for tag in seen if tag not in batch]
            done.update(batch)
            for ack in ledger.acks(batch):
                channel.ack(ack)
        elif step == "return" and seen:
            tag = seen.pop(data.draw(st.integers(0, len(seen) - 1)))
            channel.unsettled.discard(tag)
            ledger.returned(tag)
        assert channel.acked == done
    for ack in ledger.acks(seen):
        channel.ack(ack)
    assert channel.acked == done | set(seen)
