"""A private RabbitMQ node keeps what it was given, keeps to itself, and leaves nothing behind."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pika
import pika.exceptions
import pytest

from feedmill_local.errors import PortTakenError, StackError
from feedmill_local.ports import LOOPBACK, is_free
from feedmill_local.processes import wait_until
from feedmill_local.rabbitmq import RabbitNode

OWNER = """
import signal, sys
from pathlib import Path
from feedmill_local.rabbitmq import RabbitNode
RabbitNode.start(Path(sys.argv[1]))
print("up", flush=True)
signal.pause()
"""


def connect(url: str) -> closing[pika.BlockingConnection]:
    return closing(pika.BlockingConnection(pika.URLParameters(url)))


def publish_confirmed(url: str, queue: str, bodies: list[bytes], queue_type: str = "classic") -> None:
    with connect(url) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        channel.queue_declare(queue, durable=True, arguments={"x-queue-type": queue_type})
        for body in bodies:
            channel.basic_publish("", queue, body, pika.BasicProperties(delivery_mode=2), mandatory=True)


def fetch(url: str, queue: str, count: int) -> list[bytes]:
    with connect(url) as connection:
        channel = connection.channel()
        return [channel.basic_get(queue, auto_ack=True)[2] for _ in range(count)]


def processes_of(folder: Path) -> list[int]:
    """Every process whose home is in ``folder``: the node, its port mapper, and what these started."""
    mark = f"HOME={folder / 'home'}\0".encode()
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            environment = path.read_bytes()
        except OSError:  # it ended meanwhile, or is someone else's
            continue
        if mark in environment + b"\0":
            found.append(int(path.parent.name))
    return found


def listening_addresses(port: int) -> set[str]:
    """Local addresses, as the kernel writes them (proc(5), ``/proc/net/tcp``), on which ``port`` is listened on."""
    lines = [line for name in ("tcp", "tcp6") for line in Path("/proc/net", name).read_text().splitlines()[1:]]
    sockets = [(fields[1].split(":"), fields[3]) for fields in map(str.split, lines)]
    return {address for (address, number), state in sockets if int(number, 16) == port and state == "0A"}


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_confirmed_messages_survive(end: str, rabbit_node: RabbitNode, rabbit_url: str) -> None:
    bodies = [str(number).encode() for number in range(20)]
    for queue_type in ("classic", "quorum"):
        publish_confirmed(rabbit_url, queue_type, bodies, queue_type)
    # RabbitMQ writes a new quorum queue's name to disk only half a second later (Ra's DETS tables); until then a kill
    # loses the queue, whatever was confirmed. This test is about messages, not about that.
    rabbit_node.ctl("eval", "[dets:sync(Table) || Table <- dets:all()].")
    getattr(rabbit_node, end)()
    assert not rabbit_node.alive()
    rabbit_node.boot()
    for queue_type in ("classic", "quorum"):
        assert fetch(rabbit_url, queue_type, 20) == bodies


def test_vhosts_know_nothing_of_each_other(rabbit_node: RabbitNode, rabbit_url: str) -> None:
    publish_confirmed(rabbit_url, "here", [b"x"])
    other = rabbit_node.add_vhost("a vhost/with odd characters")
    with connect(other) as connection, pytest.raises(pika.exceptions.ChannelClosedByBroker, match="NOT_FOUND"):
        connection.channel().queue_declare("here", passive=True)


def test_guest_and_wrong_passwords_are_refused(rabbit_node: RabbitNode, rabbit_url: str) -> None:
    for credentials in ("guest:guest", "feedmill:wrong"):
        url = f"amqp://{credentials}@{LOOPBACK}:{rabbit_node.config.amqp_port}/%2F"
        with pytest.raises(pika.exceptions.ProbableAuthenticationError):
            pika.BlockingConnection(pika.URLParameters(url))


def test_all_connections_can_be_closed(rabbit_node: RabbitNode, rabbit_url: str) -> None:
    connection = pika.BlockingConnection(pika.URLParameters(rabbit_url))
    rabbit_node.close_all_connections("a test")
    with pytest.raises(pika.exceptions.ConnectionClosedByBroker, match=r"CONNECTION_FORCED.*a test"):
        connection.process_data_events(time_limit=10)


def test_a_failing_rabbitmqctl_is_quoted(rabbit_node: RabbitNode, rabbit_url: str) -> None:
    with pytest.raises(StackError, match=r"rabbitmqctl delete_vhost failed.*no_such_vhost"):
        rabbit_node.ctl("delete_vhost", "no_such_vhost")


def test_a_second_start_in_the_folder_is_refused_and_harmless(rabbit_node: RabbitNode, rabbit_url: str) -> None:
    with pytest.raises(StackError, match="already runs"):
        RabbitNode.start(rabbit_node.folder)
    with connect(rabbit_url) as connection:
        assert connection.is_open


def test_it_listens_on_loopback_only(rabbit_node: RabbitNode, rabbit_url: str) -> None:
    config = rabbit_node.config
    loopback = {"0100007F", "00000000000000000000000001000000"}
    for port in (config.amqp_port, config.distribution_port, config.epmd_port):
        addresses = listening_addresses(port)
        assert addresses
        assert addresses <= loopback


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder for a node of the test's own."""
    yield tmp_path / "node"
    node = RabbitNode.find(tmp_path / "node")
    if node:
        node.kill()


def test_stop_leaves_nothing_and_a_taken_port_is_named(rabbit_node: RabbitNode, folder: Path) -> None:
    node = RabbitNode.start(folder)
    config = node.config
    assert processes_of(folder)
    node.stop()
    assert wait_until(lambda: not processes_of(folder), 10)
    assert all(map(is_free, (config.amqp_port, config.distribution_port, config.epmd_port)))
    node.stop()
    with (
        socket.create_server((LOOPBACK, config.amqp_port)),
        pytest.raises(PortTakenError, match=rf"port {config.amqp_port}\b.*end that program, or remove the folder"),
    ):
        RabbitNode.start(folder)
    assert not processes_of(folder)


def test_a_node_dies_with_its_owner_and_comes_back_with_its_address(rabbit_node: RabbitNode, folder: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", OWNER, str(folder)], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "up\n"
        seen = RabbitNode.find(folder)
        assert seen is not None
        assert seen.alive()
        publish_confirmed(seen.url(), "kept", [b"x"])
        owner.kill()
    assert wait_until(lambda: not processes_of(folder), 10)
    node = RabbitNode.start(folder)
    assert node.url() == seen.url()
    assert fetch(seen.url(), "kept", 1) == [b"x"]
