"""``python -m feedmill_hint``: run the hint worker until SIGTERM."""

from feedmill.starting import prepare

prepare()

from feedmill.worker import run_worker  # noqa: E402 (the imports are what takes long)
from feedmill_hint.worker import KIND  # noqa: E402

run_worker(KIND)
