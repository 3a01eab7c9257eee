"""Running a step on several messages so that one that breaks it fails alone."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from feedmill.errors import MessageError, Outage, Retry

log = logging.getLogger(__name__)

Given = TypeVar("Given")
Answer = TypeVar("Answer")

Step = Callable[[Sequence[Given]], Awaitable[Sequence[Answer | MessageError]]]


async def narrow(
    step: Step[Given, Answer], given: Sequence[Given], on_halving: Callable[[], None]
) -> list[Answer | MessageError]:
    """The step's answers, one for each entry of ``given``, in order.

    Where the step raises, it is run again on each half, down to the entries that it raises for alone: their answers
    are the error. At worst, with one guilty entry in n, that is about 2 log2(n) further runs.

    Raises:
        Outage: as the step raised it. No entry is to blame.
    """
    try:
        return _complete(await step(given), len(given))
    except Outage:
        raise
    except MessageError as error:
        if len(given) == 1:
            return [error]
    except Exception as error:
        if len(given) == 1:
            log.exception("a step failed for one message")
            return [Retry("internal_error", f"{type(error).__name__} in {_name(step)}")]
        log.warning("a step failed for %d messages together, trying halves: %s", len(given), type(error).__name__)
    on_halving()
    middle = len(given) // 2
    first = await narrow(step, given[:middle], on_halving)
    return first + await narrow(step, given[middle:], on_halving)


def _complete(answers: Sequence[Answer | MessageError], expected: int) -> list[Answer | MessageError]:
    if len(answers) != expected:
        raise RuntimeError(f"{len(answers)} answers for {expected} entries")
    return list(answers)


def _name(step: object) -> str:
    return getattr(step, "__name__", "a step")
