"""Halving: exactly the guilty fail, in a bounded number of calls."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedmill.errors import MessageError, Outage, Reject, Retry
from feedmill.pipeline.narrow import narrow

logging.getLogger("feedmill.pipeline.narrow").setLevel(logging.CRITICAL)


class Step:
    """Answers ten times each entry; raises where a guilty one is among them."""

    def __init__(self, guilty: set[int], error: type[Exception] = ZeroDivisionError) -> None:
        self.guilty = guilty
        self.error = error
        self.calls = 0
        self.halvings = 0

    async def __call__(self, entries: Sequence[int]) -> Sequence[int | MessageError]:
        self.calls += 1
        if self.guilty & set(entries):
            raise self.error("x", "y") if issubclass(self.error, MessageError | Outage) else self.error()
        return [entry * 10 for entry in entries]

    def halved(self) -> None:
        self.halvings += 1

    def run(self, count: int) -> list[int | MessageError]:
        return asyncio.run(narrow(self, range(count), self.halved))


@given(
    st.integers(1, 70).flatmap(lambda count: st.tuples(st.just(count), st.sets(st.integers(0, count - 1)))),
    st.sampled_from([ZeroDivisionError, Reject, Retry]),
)
def test_exactly_the_guilty_fail_and_order_is_kept(case: tuple[int, set[int]], error: type[Exception]) -> None:
    count, guilty = case
    step = Step(guilty, error)
    answers = step.run(count)
    assert len(answers) == count
    expected = Retry if error is ZeroDivisionError else error
    for number, answer in enumerate(answers):
        if number in guilty:
            assert type(answer) is expected
        else:
            assert answer == number * 10
    assert step.calls <= 1 + len(guilty) * 2 * math.ceil(math.log2(max(2, count)))
    assert step.calls == 1 + 2 * step.halvings


def test_an_outage_passes_at_once() -> None:
    step = Step({3}, Outage)
    with pytest.raises(Outage):
        step.run(8)
    assert step.calls == 1


@given(st.integers(1, 20), st.integers(0, 40))
def test_a_wrong_number_of_answers_is_an_error_of_each(count: int, given_back: int) -> None:
    async def step(entries: Sequence[int]) -> Sequence[int]:
        return [7] * given_back

    answers = asyncio.run(narrow(step, range(count), lambda: None))
    assert len(answers) == count
    if given_back == count:
        assert answers == [7] * count
    elif given_back == 0 or given_back > count:
        assert {getattr(answer, "reason", None) for answer in answers} == {"internal_error"}


def test_failures_answered_for_single_entries_pass_through() -> None:
    failure = Reject("r", "d")

    async def step(entries: Sequence[int]) -> Sequence[int | MessageError]:
        return [failure if entry == 1 else entry for entry in entries]

    assert asyncio.run(narrow(step, range(3), lambda: None)) == [0, failure, 2]


def test_cancellation_is_no_failure() -> None:
    async def main() -> None:
        async def step(entries: Sequence[int]) -> Sequence[int]:
            await asyncio.Event().wait()
            return entries

        task = asyncio.create_task(narrow(step, range(4), lambda: None))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
