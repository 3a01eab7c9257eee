"""For a process under libfaketime 0.9.10: sleep by a span, not until a moment.

Python's time.sleep waits for a moment of the monotonic clock; the library shifts the moment and not the clock (EINVAL).
"""

import select
import time


def _sleep(seconds: float, /) -> None:
    select.select((), (), (), seconds)


time.sleep = _sleep
