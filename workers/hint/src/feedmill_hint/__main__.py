"""``python -m feedmill_hint``: run the hint worker until SIGTERM."""

from feedmill.worker import run_worker
from feedmill_hint.worker import KIND

run_worker(KIND)
