"""The files and the environment of a private RabbitMQ node."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePath, PurePosixPath

from feedmill_local.ports import LOOPBACK

USER = "feedmill"
CONTAINER_PORT = 5672
CONTAINER_FOLDER = PurePosixPath("/node")
DISK_FREE_LIMIT = "50MB"  # a laptop's disk is often nearly full; publishers block below the limit


@dataclass(frozen=True)
class NodeConfig:
    """What makes a node this node: kept in its folder, so that it comes back at the same address with the same data."""

    name: str
    password: str
    amqp_port: int
    distribution_port: int
    epmd_port: int
    plugins: tuple[str, ...] = ()
    docker: bool = False

    @classmethod
    def new(cls, ports: Sequence[int], plugins: Sequence[str], docker: bool = False) -> NodeConfig:
        """A node with a random name and password. ``ports``: for AMQP, Erlang's distribution and its port mapper."""
        amqp, distribution, epmd = ports
        name = f"feedmill-{secrets.token_hex(4)}@localhost"
        return cls(name, secrets.token_urlsafe(24), amqp, distribution, epmd, tuple(plugins), docker)

    @classmethod
    def read(cls, folder: Path) -> NodeConfig | None:
        """The config of the node that lives in ``folder``, if one does."""
        path = folder / "node.json"
        if not path.is_file():
            return None
        fields = json.loads(path.read_text(encoding="utf-8"))
        return cls(**{**fields, "plugins": tuple(fields["plugins"])})

    def save(self, folder: Path) -> None:
        """Keep it in ``folder``: from now on this node lives there."""
        _write_private(folder / "node.json", json.dumps(asdict(self)))

    def write_boot_files(self, folder: Path, vhosts: Sequence[str]) -> None:
        """Write what the node reads at boot. ``vhosts`` are created then; those that exist stay."""
        (folder / "home").mkdir(parents=True, exist_ok=True)
        _write_private(folder / "definitions.json", json.dumps(_definitions(self.password, vhosts)))
        (folder / "rabbitmq.conf").write_text(self._conf(folder), encoding="utf-8")
        (folder / "enabled_plugins").write_text(f"[{','.join(self.plugins)}].\n", encoding="utf-8")
        (folder / "env.conf").write_text("", encoding="utf-8")  # keeps /etc/rabbitmq/rabbitmq-env.conf out
        cookie = folder / "home" / ".erlang.cookie"
        if not cookie.exists():
            _write_private(cookie, secrets.token_hex(20))

    def variables(self, folder: PurePath) -> dict[str, str]:
        """Environment variables that tell RabbitMQ's scripts where in ``folder`` everything is."""
        return {
            "HOME": str(folder / "home"),
            "RABBITMQ_NODENAME": self.name,
            "RABBITMQ_MNESIA_BASE": str(folder / "data"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(folder / "advanced.config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
            "RABBITMQ_CONF_ENV_FILE": str(folder / "env.conf"),
            "RABBITMQ_PID_FILE": str(folder / "rabbitmq.pid"),
        }

    def _conf(self, folder: Path) -> str:
        listener = f"0.0.0.0:{CONTAINER_PORT}" if self.docker else f"{LOOPBACK}:{self.amqp_port}"
        definitions = (CONTAINER_FOLDER if self.docker else folder) / "definitions.json"
        lines = (
            f"listeners.tcp.1 = {listener}",
            f"load_definitions = {definitions}",
            f"disk_free_limit.absolute = {DISK_FREE_LIMIT}",
            "vm_memory_high_watermark.relative = 0.4",
            "log.file = false",
            "log.console = true",
            "log.console.level = info",
            "log.console.use_colors = off",
        )
        return "\n".join((*lines, ""))


def _definitions(password: str, vhosts: Sequence[str]) -> dict[str, list[dict[str, str]]]:
    user = {"name": USER, "password_hash": hash_password(password), "tags": "administrator"}
    users = [{**user, "hashing_algorithm": "rabbit_password_hashing_sha256"}]
    return {"users": users, **vhost_definitions(["/", *vhosts])}


def vhost_definitions(names: Sequence[str]) -> dict[str, list[dict[str, str]]]:
    """The definitions (https://www.rabbitmq.com/docs/definitions) of vhosts in which ``USER`` may do all."""
    rights = {"user": USER, "configure": ".*", "write": ".*", "read": ".*"}
    return {"vhosts": [{"name": name} for name in names], "permissions": [{**rights, "vhost": name} for name in names]}


def hash_password(password: str, salt: bytes | None = None) -> str:
    """RabbitMQ's salted SHA-256: base64(salt + sha256(salt + password)), 4 bytes of salt.

    Source: https://www.rabbitmq.com/docs/passwords#computing-password-hash
    """
    salt = secrets.token_bytes(4) if salt is None else salt
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()


def _write_private(path: Path, text: str) -> None:
    """Only the owner may read it; Erlang refuses a cookie that others could read."""
    path.unlink(missing_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:  # noqa: PTH123
        file.write(text)
