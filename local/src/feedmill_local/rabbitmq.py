"""A private RabbitMQ node: own name, ports, data, user and password, on 127.0.0.1 only."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from urllib.parse import quote

from feedmill.errors import shorten
from feedmill_local.errors import StackError
from feedmill_local.ports import LOOPBACK
from feedmill_local.rabbitmq_config import CONTAINER_FOLDER, USER, NodeConfig, vhost_definitions
from feedmill_local.rabbitmq_packages import Installation, find_or_download
from feedmill_local.rabbitmq_programs import container, container_programs, native_environment, native_programs
from feedmill_local.servers import Programs, on_new_ports, start_lock

STOP_TIMEOUT_SECONDS = 20.0
CTL_TIMEOUT_SECONDS = 60.0


class RabbitNode:
    """A node in a folder. All methods block: on an event loop, call them in a thread."""

    def __init__(self, folder: Path, config: NodeConfig) -> None:
        self.folder = folder
        self.config = config
        self._programs = Programs(folder, "rabbitmq")

    @classmethod
    def start(
        cls,
        folder: Path,
        *,
        plugins: Sequence[str] = (),
        vhosts: Sequence[str] = (),
        outlive: bool = False,
        docker: bool = False,
    ) -> RabbitNode:
        """Start the node that lives in ``folder``, at its old address and with its old data, or a new one.

        Args:
            plugins: enabled in a new node, such as ``rabbitmq_management``; their own ports are RabbitMQ's defaults.
            vhosts: created at boot beside ``/``, with all rights for the node's user.
            outlive: whether the node stays up when this process ends; otherwise it is killed then.
            docker: a new node runs in a container; one that exists stays what it is.

        Raises:
            NotInstalledError: there is no RabbitMQ and it can't be fetched; the text says what to do.
            StackError: a node already runs in the folder, its port is taken, or it does not come up.
        """
        folder = folder.resolve()
        with start_lock(folder):
            known = NodeConfig.read(folder)
            if known:
                return cls(folder, known)._boot(vhosts, outlive)
            return on_new_ports(
                3, lambda ports: cls(folder, NodeConfig.new(ports, plugins, docker))._boot(vhosts, outlive)
            )

    @classmethod
    def find(cls, folder: Path) -> RabbitNode | None:
        """The node that lives in ``folder``, running or not."""
        config = NodeConfig.read(folder.resolve())
        return cls(folder.resolve(), config) if config else None

    def boot(self, *, vhosts: Sequence[str] = (), outlive: bool = False) -> None:
        """Start it again after :meth:`stop` or :meth:`kill`: same address, same data. As :meth:`start` otherwise."""
        with start_lock(self.folder):
            self._boot(vhosts, outlive)

    def _boot(self, vhosts: Sequence[str], outlive: bool) -> RabbitNode:
        self._programs.check_stopped()
        self.config.write_boot_files(self.folder, vhosts)
        if self.config.docker:
            container(self.config, self.folder).prepare()
            programs = container_programs(self.config, self.folder)
        else:
            programs = native_programs(self.config, self.folder, self._installation)
        self._programs.start(programs, outlive=outlive)
        self.config.save(self.folder)
        return self

    def alive(self) -> bool:
        """Whether the node's processes run."""
        return self._programs.alive()

    @cached_property
    def _installation(self) -> Installation:
        return find_or_download()

    def url(self, vhost: str = "/") -> str:
        """The AMQP URL, with its password: for connecting only, never for a log."""
        return f"amqp://{USER}:{self.config.password}@{LOOPBACK}:{self.config.amqp_port}/{quote(vhost, safe='')}"

    def stop(self) -> None:
        """End it in order; what does not end in time is killed. Does nothing when it is stopped."""
        self._programs.stop(STOP_TIMEOUT_SECONDS)

    def kill(self) -> None:
        """SIGKILL, as a crash would end it."""
        self._programs.kill()
        if self.config.docker:
            container(self.config, self.folder).remove()

    def ctl(self, *arguments: str) -> str:
        """Run ``rabbitmqctl`` (about 0.6 s) and return what it prints.

        Raises:
            StackError: it failed; the text is what it said.
        """
        try:
            done = subprocess.run(
                [*self._ctl_command(), "--quiet", *arguments],
                env=self._ctl_environment(),
                cwd=self.folder,
                capture_output=True,
                check=False,
                stdin=subprocess.DEVNULL,
                text=True,
                timeout=CTL_TIMEOUT_SECONDS,
            )
        except subprocess.TimeoutExpired as error:
            raise StackError(f"rabbitmqctl {arguments[0]} took over {CTL_TIMEOUT_SECONDS:.0f} s") from error
        if done.returncode:
            raise StackError(f"rabbitmqctl {arguments[0]} failed: {shorten(done.stderr or done.stdout)}")
        return done.stdout

    def _ctl_command(self) -> list[str]:
        if self.config.docker:
            return ["docker", "exec", container(self.config, self.folder).name, "rabbitmqctl"]
        return [str(self._installation.sbin / "rabbitmqctl")]

    def _ctl_environment(self) -> dict[str, str] | None:
        return None if self.config.docker else native_environment(self.config, self.folder, self._installation)

    def add_vhosts(self, names: Sequence[str]) -> None:
        """Create vhosts with all rights for the node's user, in one go. Those that exist stay as they are."""
        (self.folder / "vhosts.json").write_text(json.dumps(vhost_definitions(names)), encoding="utf-8")
        self.ctl("import_definitions", str((CONTAINER_FOLDER if self.config.docker else self.folder) / "vhosts.json"))

    def add_vhost(self, name: str) -> str:
        """Create one vhost; its URL."""
        self.add_vhosts([name])
        return self.url(name)

    def close_all_connections(self, reason: str = "closed on purpose") -> None:
        """Close every client's connection from the broker's side, in all vhosts."""
        self.ctl("close_all_connections", "--global", reason)  # without it: of the default vhost only
