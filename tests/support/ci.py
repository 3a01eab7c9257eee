"""What differs between runs: on a laptop what is missing skips a test, in CI it fails it; and the kind of queues."""

from __future__ import annotations

import os


def in_ci() -> bool:
    """Whether ``CI`` is set to something that means yes."""
    return os.environ.get("CI", "").strip().lower() not in {"", "0", "false", "no"}


def queue_type() -> str:
    """What workers create their queues as in this run: TEST_QUEUE_TYPE, classic or quorum (`make test-brokers`)."""
    return os.environ.get("TEST_QUEUE_TYPE", "classic")


def queue_arguments() -> dict[str, str]:
    """What a producer that makes a queue of this run's kind declares it with."""
    return {} if queue_type() == "classic" else {"x-queue-type": queue_type()}
