"""A container's last word: what Kubernetes keeps of it in the pod's status, where no log has to be read."""

from __future__ import annotations

import os
from pathlib import Path

TERMINATION_LOG = "/dev/termination-log"


def leave_last_word(text: str) -> None:
    """Write ``text`` to the termination log (``FEEDMILL_TERMINATION_LOG``); outside of Kubernetes there is none."""
    path = Path(os.environ.get("FEEDMILL_TERMINATION_LOG", TERMINATION_LOG))
    if path.exists():
        path.write_text(text, encoding="utf-8")
