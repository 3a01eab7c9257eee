"""TCP ports on 127.0.0.1 for private servers."""

from __future__ import annotations

import random
import socket

from feedmill_local.errors import StackError

LOOPBACK = "127.0.0.1"
# Below the range that Linux gives to outgoing connections (32768 and up), so that no client takes a server's port while
# the server is down; above the well-known ones.
FIRST_PORT, LAST_PORT = 20_000, 32_000


def is_free(port: int) -> bool:
    """Whether a server could listen on ``port`` now. A port whose old connections are in TIME_WAIT counts as free."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
            probe.listen(1)  # with SO_REUSEADDR it is the listen that fails beside another listener
        except OSError:
            return False
    return True


def accepts(port: int, timeout_seconds: float = 1.0) -> bool:
    """Whether something accepts connections on ``port``."""
    try:
        socket.create_connection((LOOPBACK, port), timeout_seconds).close()
    except OSError:
        return False
    return True


def free_ports(count: int) -> tuple[int, ...]:
    """``count`` different ports that are free now. Another program can still take one before its server starts."""
    candidates = random.SystemRandom().sample(range(FIRST_PORT, LAST_PORT), 50 * count)
    found = [port for _, port in zip(range(count), filter(is_free, candidates), strict=False)]
    if len(found) < count:
        raise StackError(
            f"expected {count} free ports on {LOOPBACK} between {FIRST_PORT} and {LAST_PORT}; close programs"
        )
    return tuple(found)
