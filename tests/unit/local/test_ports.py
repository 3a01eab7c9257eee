"""Ports for private servers."""

from __future__ import annotations

import socket

import pytest

from feedmill_local import ports
from feedmill_local.errors import StackError


def test_free_ports_differ_and_are_free() -> None:
    found = ports.free_ports(5)
    assert len(set(found)) == 5
    assert all(ports.is_free(port) for port in found)
    assert all(ports.FIRST_PORT <= port < ports.LAST_PORT for port in found)


def test_a_port_with_a_listener_is_not_free() -> None:
    with socket.create_server((ports.LOOPBACK, 0)) as server:
        port = server.getsockname()[1]
        assert not ports.is_free(port)
        assert ports.accepts(port)
    assert ports.is_free(port)
    assert not ports.accepts(port)


def test_no_free_port_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "is_free", lambda port: False)
    with pytest.raises(StackError, match="expected 2 free ports"):
        ports.free_ports(2)
