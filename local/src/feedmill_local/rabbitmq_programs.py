"""How a RabbitMQ node's programs are started: straight from an installation, or in a container."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

from feedmill_local.containers import Container
from feedmill_local.ports import LOOPBACK, accepts
from feedmill_local.rabbitmq_config import CONTAINER_FOLDER, CONTAINER_PORT, NodeConfig
from feedmill_local.rabbitmq_packages import Installation
from feedmill_local.servers import Program

IMAGE = "rabbitmq:4"
ON_LOOPBACK = "-kernel inet_dist_use_interface {127,0,0,1}"
# Two schedulers: enough for one machine's traffic, and quicker to start than one for each of many cores.
SCHEDULERS = "+S 2:2"


def native_programs(config: NodeConfig, folder: Path, installation: Installation) -> list[Program]:
    """Erlang's port mapper, then the node.

    The mapper (epmd) runs in the foreground as a program of ours: left to itself, Erlang starts it as a daemon that
    stays behind.
    """
    environment = native_environment(config, folder, installation)
    mapper: list[str | Path] = [installation.epmd, "-port", str(config.epmd_port), "-address", LOOPBACK]
    server = installation.sbin / "rabbitmq-server"
    return [
        Program("epmd", mapper, environment, config.epmd_port, lambda: accepts(config.epmd_port)),
        Program("node", [server], environment, config.amqp_port, lambda: answers_amqp(config.amqp_port)),
    ]


def native_environment(config: NodeConfig, folder: Path, installation: Installation) -> dict[str, str]:
    """The whole environment of the node and of rabbitmqctl: none of the user's own settings for either reach them."""
    kept = {name: os.environ[name] for name in ("TZ", "TMPDIR", "LD_LIBRARY_PATH") if name in os.environ}
    port = config.distribution_port
    distribution = f"{ON_LOOPBACK} -kernel inet_dist_listen_min {port} inet_dist_listen_max {port}"
    return {
        **kept,
        **config.variables(folder),
        "PATH": os.pathsep.join((str(installation.erl.parent), "/usr/bin", "/bin")),
        "LANG": "C.UTF-8",
        "ERL_EPMD_PORT": str(config.epmd_port),
        "ERL_EPMD_ADDRESS": LOOPBACK,
        "ERL_CRASH_DUMP_BYTES": "0",
        "RABBITMQ_NODE_IP_ADDRESS": LOOPBACK,
        "RABBITMQ_NODE_PORT": str(config.amqp_port),
        "RABBITMQ_DIST_PORT": str(port),
        # The start script then becomes Erlang instead of staying its parent, so that signals reach the node.
        "RUNNING_UNDER_SYSTEMD": "true",
        # With its name given here, Erlang is distributed before RabbitMQ looks, and RabbitMQ starts no mapper itself.
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": f"{SCHEDULERS} -sname {config.name} -start_epmd false {distribution}",
        "RABBITMQ_CTL_ERL_ARGS": f"-start_epmd false {ON_LOOPBACK}",
        "RABBITMQ_CTL_DIST_PORT_MIN": "0",  # any free port: several may run at once
        "RABBITMQ_CTL_DIST_PORT_MAX": "0",
    }


def container(config: NodeConfig, folder: Path) -> Container:
    """The official image (``IMAGE``) with the node's own folder in it."""
    return Container(
        name=f"feedmill-rabbitmq-{config.amqp_port}",
        image=IMAGE,
        port=config.amqp_port,
        inside_port=CONTAINER_PORT,
        folder=folder,
        mount=str(CONTAINER_FOLDER),
        environment=config.variables(CONTAINER_FOLDER),
    )


def container_programs(config: NodeConfig, folder: Path) -> list[Program]:
    """Docker's client, which runs the container; SIGTERM reaches the node through it."""
    command = container(config, folder).command()
    port = config.amqp_port
    return [Program("node", command, os.environ, port, lambda: answers_amqp(port), at_owners_death=signal.SIGTERM)]


def answers_amqp(port: int) -> bool:
    """Whether an AMQP 0-9-1 broker answers on ``port``: it answers a protocol header by a method frame (type 1)."""
    try:
        with socket.create_connection((LOOPBACK, port), 1.0) as connection:
            connection.settimeout(5.0)
            connection.sendall(b"AMQP\x00\x00\x09\x01")
            return connection.recv(1) == b"\x01"
    except OSError:
        return False
