"""What has died is started again, with back-off: decided without a clock of its own."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from feedmill_local.errors import StackError
from feedmill_local.supervise import FIRST_DELAY_SECONDS, MAX_DELAY_SECONDS, STABLE_SECONDS, Part


@dataclass
class Fake:
    """A part that lives and dies as the test says."""

    living: bool = True
    can_start: bool = True
    restarts: int = 0
    said: list[str] = field(default_factory=list)

    def part(self) -> Part:
        return Part("toxic", lambda: self.living, lambda: "toxic ended", self.restart, since=0.0)

    def restart(self) -> None:
        if not self.can_start:
            raise StackError("no such program")
        self.restarts += 1
        self.living = True


@pytest.fixture
def fake() -> Fake:
    return Fake()


def test_what_lives_is_left_alone(fake: Fake) -> None:
    part = fake.part()
    part.check(1.0, fake.said.append)
    assert fake.said == []
    assert fake.restarts == 0


def test_a_death_is_told_once_and_cured_after_the_delay(fake: Fake) -> None:
    part = fake.part()
    fake.living = False
    part.check(1.0, fake.said.append)
    part.check(1.0 + FIRST_DELAY_SECONDS / 4, fake.said.append)
    assert fake.restarts == 0
    assert fake.said.count("toxic ended") == 1
    part.check(1.0 + FIRST_DELAY_SECONDS, fake.said.append)
    assert fake.restarts == 1
    part.check(3.0, fake.said.append)
    assert fake.said.count("toxic ended") == 1


def crash_again_and_again(fake: Fake, part: Part, times: int, run_seconds: float) -> list[float]:
    """How long each restart was put off."""
    now, delays = 0.0, []
    for _ in range(times):
        now += run_seconds
        fake.living = False
        part.check(now, fake.said.append)
        assert part.due is not None
        delays.append(part.due - now)
        now = part.due
        part.check(now, fake.said.append)
    return delays


def test_what_dies_again_at_once_waits_longer_and_longer_up_to_a_cap(fake: Fake) -> None:
    delays = crash_again_and_again(fake, fake.part(), 12, run_seconds=0.1)
    assert delays[0] <= FIRST_DELAY_SECONDS
    assert delays[5] > FIRST_DELAY_SECONDS * 4
    assert max(delays) <= MAX_DELAY_SECONDS
    assert fake.restarts == 12


def test_what_ran_for_long_is_started_again_quickly(fake: Fake) -> None:
    part = fake.part()
    crash_again_and_again(fake, part, 6, run_seconds=0.1)
    delays = crash_again_and_again(fake, part, 1, run_seconds=STABLE_SECONDS * 10)
    assert delays[0] <= FIRST_DELAY_SECONDS


def test_a_start_that_fails_is_tried_again(fake: Fake) -> None:
    part = fake.part()
    fake.living = fake.can_start = False
    part.check(0.0, fake.said.append)
    part.check(2.0, fake.said.append)
    assert "toxic: no such program" in fake.said
    fake.can_start = True
    part.check(10.0, fake.said.append)
    assert fake.restarts == 1
