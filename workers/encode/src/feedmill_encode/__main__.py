"""``python -m feedmill_encode``: run the encode worker until SIGTERM."""

from feedmill.worker import run_worker
from feedmill_encode.worker import KIND

run_worker(KIND)
