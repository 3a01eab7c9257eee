"""Servers in Docker: ``docker run`` in the foreground, so that a container is a program like any other.

The client passes SIGTERM on to its container, and ``--rm`` removes the container when it ends; only after a SIGKILL of
the client has the container to be removed separately.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from feedmill.errors import shorten
from feedmill_local.errors import NotInstalledError, StackError
from feedmill_local.ports import LOOPBACK

ENGINE_TIMEOUT_SECONDS = 20.0
PULL_TIMEOUT_SECONDS = 600.0


@dataclass(frozen=True)
class Container:
    """What is run: ``image`` with ``arguments``, ``port`` on 127.0.0.1 published as ``inside_port`` in it.

    ``folder`` is mounted at ``mount`` and belongs to the user, as whom the container runs.
    """

    name: str
    image: str
    port: int
    inside_port: int
    folder: Path
    mount: str
    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)

    def command(self) -> list[str]:
        """The command that runs it in the foreground."""
        variables = [part for name, value in self.environment.items() for part in ("--env", f"{name}={value}")]
        return [
            *("docker", "run", "--rm", "--name", self.name),
            *("--user", f"{os.getuid()}:{os.getgid()}"),
            *("--publish", f"{LOOPBACK}:{self.port}:{self.inside_port}"),
            *("--volume", f"{self.folder}:{self.mount}"),
            *variables,
            self.image,
            *self.arguments,
        ]

    def prepare(self) -> None:
        """Remove what a crash may have left under its name, and fetch its image where it is not there yet.

        Raises:
            NotInstalledError: there is no Docker, or no engine answers.
            StackError: the image can't be fetched.
        """
        require_engine()
        self.remove()
        if _docker("image", "inspect", self.image, timeout_seconds=ENGINE_TIMEOUT_SECONDS).returncode:
            pulled = _docker("pull", "--quiet", self.image, timeout_seconds=PULL_TIMEOUT_SECONDS)
            if pulled.returncode:
                raise StackError(f"docker pull {self.image} failed: {shorten(pulled.stderr)}")

    def remove(self) -> None:
        """Kill and remove it, if it is there."""
        _docker("rm", "--force", "--volumes", self.name, timeout_seconds=ENGINE_TIMEOUT_SECONDS)


def require_engine() -> None:
    """Check that a container could be run.

    Raises:
        NotInstalledError: there is no Docker, or no engine answers.
    """
    if shutil.which("docker") is None:
        raise NotInstalledError("there is no docker on the PATH: install Docker, or leave out --docker")
    answer = _docker("version", "--format", "{{.Server.Version}}", timeout_seconds=ENGINE_TIMEOUT_SECONDS)
    if answer.returncode:
        raise NotInstalledError(
            f"Docker's engine does not answer ({shorten(answer.stderr)}): start it, or leave out --docker"
        )


def _docker(*arguments: str, timeout_seconds: float) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            ["docker", *arguments],
            capture_output=True,
            check=False,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=timeout_seconds,
        )
    except subprocess.TimeoutExpired as error:
        raise StackError(f"docker {arguments[0]} took over {timeout_seconds:.0f} s") from error
