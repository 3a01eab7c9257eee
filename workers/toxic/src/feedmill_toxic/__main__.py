"""``python -m feedmill_toxic``: run the toxic worker until SIGTERM."""

from feedmill.worker import run_worker
from feedmill_toxic.worker import KIND

run_worker(KIND)
