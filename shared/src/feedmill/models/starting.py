"""The start of a model: what takes long is done side by side."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def import_torch_beside(call: Callable[[], T]) -> T:
    """Run ``call`` while another thread imports torch: two seconds of a start, in which hashing weights is free."""
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="import-torch") as executor:
        importing = executor.submit(importlib.import_module, "torch")
        answer = call()
        importing.result()
    return answer
