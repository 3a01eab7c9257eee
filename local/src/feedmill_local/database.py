"""A private database that speaks MongoDB's protocol, on 127.0.0.1 only: ``mongod``, or else the embedded one.

The embedded database is SecantusDB (https://pypi.org/project/SecantusDB/): beta and GPL-2.0, for trying out and for
tests only. It runs as a program of its own and is never imported.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pymongo import MongoClient
from pymongo.errors import OperationFailure, PyMongoError

from feedmill_local.containers import Container, require_engine
from feedmill_local.errors import NotInstalledError
from feedmill_local.ports import LOOPBACK, accepts
from feedmill_local.servers import Program, Programs, on_new_ports, start_lock

STOP_TIMEOUT_SECONDS = 5.0  # the embedded database may not end while clients are attached
IMAGE = "mongo:8.0"
REPLICA_SET = "feedmill"
EMBEDDED = "secantusd-py"
CACHE_SIZE = "256M"
ALREADY_INITIALIZED = 23  # MongoDB's error code AlreadyInitialized
ADVICE = (
    "Install MongoDB (mongod on the PATH), or the embedded database (pip install 'feedmill-local[embedded]'), "
    "or use Docker (--docker), or set MONGO_URI to a database that you already run."
)
# The embedded one loses acknowledged majority writes at a kill unless they are journalled, and gets slower with every
# retryable write.
OPTIONS = {
    "mongod": "directConnection=true&journal=true&w=majority&serverSelectionTimeoutMS=4000",
    "docker": "directConnection=true&journal=true&w=majority&serverSelectionTimeoutMS=4000",
    "embedded": "retryWrites=false&journal=true&w=majority&serverSelectionTimeoutMS=4000",
}


@dataclass(frozen=True)
class DatabaseConfig:
    """What makes it this database: kept in its folder. ``kind``: a key of ``OPTIONS``."""

    kind: str
    port: int

    @classmethod
    def read(cls, folder: Path) -> DatabaseConfig | None:
        """The config of the database that lives in ``folder``, if one does."""
        path = folder / "database.json"
        return cls(**json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None

    def save(self, folder: Path) -> None:
        """Keep it in ``folder``: from now on this database lives there."""
        (folder / "database.json").write_text(json.dumps(asdict(self)), encoding="utf-8")


class Database:
    """A database in a folder. All methods block: on an event loop, call them in a thread."""

    def __init__(self, folder: Path, config: DatabaseConfig) -> None:
        self.folder = folder
        self.config = config
        self._programs = Programs(folder, "database")

    @classmethod
    def start(cls, folder: Path, *, outlive: bool = False, docker: bool = False) -> Database:
        """Start the database that lives in ``folder``, at its old address and with its old data, or a new one.

        Args:
            outlive: whether it stays up when this process ends; otherwise it is killed then.
            docker: a new one runs in a container (``IMAGE``); one that exists stays what it is.

        Raises:
            NotInstalledError: there is no such program; the text says what to do.
            StackError: one already runs in the folder, its port is taken, or it does not come up.
        """
        folder = folder.resolve()
        with start_lock(folder):
            known = DatabaseConfig.read(folder)
            if known:
                return cls(folder, known)._boot(outlive)
            kind = _kind(docker)
            return on_new_ports(1, lambda ports: cls(folder, DatabaseConfig(kind, *ports))._boot(outlive))

    @classmethod
    def find(cls, folder: Path) -> Database | None:
        """The database that lives in ``folder``, running or not."""
        config = DatabaseConfig.read(folder.resolve())
        return cls(folder.resolve(), config) if config else None

    def boot(self, *, outlive: bool = False) -> None:
        """Start it again after :meth:`stop` or :meth:`kill`: same address, same data."""
        with start_lock(self.folder):
            self._boot(outlive)

    def _boot(self, outlive: bool) -> Database:
        self._programs.check_stopped()
        (self.folder / "data").mkdir(parents=True, exist_ok=True)
        container = self._container()
        if container:
            container.prepare()
        command = container.command() if container else self._command()
        program = Program(self.config.kind, command, os.environ, self.config.port, self._ready)
        self._programs.start([program], outlive=outlive)
        self.config.save(self.folder)
        return self

    @property
    def uri(self) -> str:
        """MongoDB URI. It holds no password: the server listens on 127.0.0.1 without users."""
        return f"mongodb://{LOOPBACK}:{self.config.port}/?{OPTIONS[self.config.kind]}"

    def alive(self) -> bool:
        """Whether its process runs."""
        return self._programs.alive()

    def stop(self) -> None:
        """End it in order; what does not end in time is killed. Does nothing when it is stopped."""
        self._programs.stop(STOP_TIMEOUT_SECONDS)

    def kill(self) -> None:
        """SIGKILL, as a crash would end it."""
        self._programs.kill()
        container = self._container()
        if container:
            container.remove()

    def _container(self) -> Container | None:
        if self.config.kind != "docker":
            return None
        return Container(
            name=f"feedmill-database-{self.config.port}",
            image=IMAGE,
            port=self.config.port,
            inside_port=27017,
            folder=self.folder / "data",
            mount="/data/db",
            arguments=("--replSet", REPLICA_SET, "--bind_ip_all"),
        )

    def _command(self) -> list[str]:
        """The database's command line. An empty config file keeps the user's own from being read."""
        port, data = str(self.config.port), str(self.folder / "data")
        if self.config.kind == "mongod":
            mongod = ["mongod", "--port", port, "--dbpath", data, "--bind_ip", LOOPBACK]
            return [*mongod, "--replSet", REPLICA_SET, "--nounixsocket"]
        config = self.folder / "secantusd.toml"
        config.write_text("", encoding="utf-8")
        program = _embedded_program()
        if program is None:
            raise NotInstalledError(f"the database in {self.folder} needs {EMBEDDED}, which is not there. {ADVICE}")
        address = ["--host", LOOPBACK, "--port", port, "--storage-path", data]
        return [program, "--config", str(config), *address, "--log-level", "WARNING", "--cache-size", CACHE_SIZE]

    def _ready(self) -> bool:
        """Whether it takes writes. A new MongoDB is made a replica set of one first: change streams need one."""
        if not accepts(self.config.port):
            return False
        try:
            with _client(self.config.port) as client:
                if self.config.kind != "embedded":
                    _initiate(client, self._member())
                return bool(client.admin.command("hello").get("isWritablePrimary"))
        except PyMongoError:
            return False

    def _member(self) -> str:
        """The replica set's own address for itself."""
        return f"{LOOPBACK}:{27017 if self.config.kind == 'docker' else self.config.port}"


def _client(port: int) -> MongoClient[dict[str, Any]]:
    timeout = 2000
    return MongoClient(
        LOOPBACK,
        port,
        directConnection=True,
        serverSelectionTimeoutMS=timeout,
        connectTimeoutMS=timeout,
        socketTimeoutMS=timeout,
    )


def _initiate(client: MongoClient[dict[str, Any]], member: str) -> None:
    try:
        client.admin.command("replSetInitiate", {"_id": REPLICA_SET, "members": [{"_id": 0, "host": member}]})
    except OperationFailure as error:
        if error.code != ALREADY_INITIALIZED:
            raise


def _kind(docker: bool) -> str:
    if docker:
        require_engine()
        return "docker"
    if shutil.which("mongod"):
        return "mongod"
    if _embedded_program():
        return "embedded"
    raise NotInstalledError(f"there is no MongoDB on this machine. {ADVICE}")


def _embedded_program() -> str | None:
    """The program that this Python's own environment holds, else one on the PATH."""
    return shutil.which(EMBEDDED, path=str(Path(sys.executable).parent)) or shutil.which(EMBEDDED)
