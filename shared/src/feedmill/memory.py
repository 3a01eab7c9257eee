"""How the C library's allocator deals with what a forward pass needs."""

from __future__ import annotations

import ctypes

# <malloc.h> of glibc.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8

REUSED_BYTES = 32 * 1024 * 1024
"""A block below this is kept and used again: the largest tensors of a default batch have 6 MB."""
KEPT_BYTES = 64 * 1024 * 1024
"""So much that is free stays with the process; the rest goes back to the system."""


def reuse_blocks() -> bool:
    """Keep the memory of tensors for the next batch, in one arena; False where the C library is not glibc.

    By default each of the large tensors of each layer is mapped anew and given back, which costs a page fault for each
    4 KiB of it (measured: 170 a text, 4 % of the CPU time), and each thread has an arena of its own, which keeps its
    own free blocks. Call it before the threads start.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    options = ((_ARENA_MAX, 1), (_MMAP_THRESHOLD, REUSED_BYTES), (_TRIM_THRESHOLD, KEPT_BYTES))
    return all(mallopt(option, value) for option, value in options)
