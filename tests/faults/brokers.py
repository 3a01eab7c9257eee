"""Other versions of RabbitMQ, from other releases of Debian, unpacked privately and run in a chroot.

The packages come from the machine's own Debian mirror with lists, status and cache of our own; nothing is installed and
no configuration of the machine is read beyond its mirror's address and Debian's keys. Needs root (for chroot) and apt.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path

from feedmill_local.errors import NotInstalledError
from feedmill_local.locks import locked
from feedmill_local.rabbitmq import RabbitNode
from feedmill_local.rabbitmq_config import NodeConfig
from feedmill_local.rabbitmq_packages import Installation

SUITES = {"4.0": "trixie", "newest": "sid"}
"""The newest: whatever Debian's unstable has; the node's own log tells which."""
PACKAGES = ("rabbitmq-server", "base-files", "bash", "dash", "coreutils", "sed", "grep", "mawk", "hostname")
"""With an empty package status apt fetches all that these depend on, but not what every Debian system has anyway."""
SECONDS = 600
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


class OtherNode(RabbitNode):
    """A node of another version. Its folder lies inside the chroot, where it has the same path as outside."""

    def __init__(self, folder: Path, config: NodeConfig, installation: Installation | None = None) -> None:
        super().__init__(folder, config)
        if installation is not None:
            self.__dict__["_installation"] = installation  # fills the cached property, so that nothing is looked for


def find_or_unpack(version: str, cache: Path) -> tuple[Path, Installation]:
    """The root of an unpacked Debian with that RabbitMQ, and the wrappers that start its programs.

    Raises:
        NotInstalledError: not root, no apt, or the packages can't be had.
    """
    if os.geteuid() != 0 or not shutil.which("apt-get") or not shutil.which("chroot"):
        raise NotInstalledError("another version of RabbitMQ needs root, apt and chroot")
    root = cache / f"debian-{SUITES[version]}"
    cache.mkdir(parents=True, exist_ok=True)
    with locked(cache / f"{SUITES[version]}.lock", SECONDS):
        if not root.is_dir():
            _unpack(SUITES[version], cache, root)
    sbin = next((root / "usr/lib/rabbitmq/lib").glob("rabbitmq_server-*/sbin"))
    return root, _wrappers(root, sbin)


def new_node(version: str, cache: Path, ports: list[int], vhosts: list[str]) -> OtherNode:
    root, installation = find_or_unpack(version, cache)
    folder = Path(tempfile.mkdtemp(dir=root / "nodes"))
    node = OtherNode(folder, NodeConfig.new(ports, ()), installation)
    node.boot(vhosts=vhosts)
    return node


def _unpack(suite: str, cache: Path, root: Path) -> None:
    with tempfile.TemporaryDirectory(dir=cache) as scratch_name:
        scratch = Path(scratch_name)
        for folder in ("lists/partial", "archives/partial", "root/dev", "root/nodes", "root/tmp", "root/proc"):
            (scratch / folder).mkdir(parents=True)
        (scratch / "status").touch()
        sites = _run(["apt-get", "indextargets", "--format", "$(SITE)"]).split()
        site = next(site for site in sorted(set(sites)) if "security" not in site)
        (scratch / "sources.list").write_text(f"deb [signed-by={KEYRING}] {site} {suite} main\n", encoding="utf-8")
        options = {
            "Dir::Etc::sourcelist": scratch / "sources.list",
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::Etc::preferences": "/dev/null",
            "Dir::Etc::preferencesparts": "/dev/null",
            "Dir::State::lists": scratch / "lists",
            "Dir::State::status": scratch / "status",
            "Dir::Cache": scratch,
            "APT::Sandbox::User": "root",
            "APT::Install-Recommends": "0",
        }
        ours = [part for name, value in options.items() for part in ("-o", f"{name}={value}")]
        _run(["apt-get", "update", "-q", *ours])
        _run(["apt-get", "install", "-y", "-q", "--download-only", *ours, *PACKAGES])
        for archive in sorted((scratch / "archives").glob("*.deb")):
            _run(["dpkg", "-x", str(archive), str(scratch / "root")])
        _furnish(scratch / "root", root)
        (scratch / "root").rename(root)


def _furnish(unpacked: Path, root: Path) -> None:
    """What the packages' own scripts would have made, as far as a node needs it."""
    for link, target in {"bin": "usr/bin", "lib": "usr/lib", "lib64": "usr/lib64", "sbin": "usr/sbin"}.items():
        if not (unpacked / link).exists():
            (unpacked / link).symlink_to(target)
    for link, target in {"sh": "dash", "awk": "mawk"}.items():
        if not (unpacked / "usr/bin" / link).exists():
            (unpacked / "usr/bin" / link).symlink_to(target)
    (unpacked / "etc/hosts").write_text("127.0.0.1 localhost\n", encoding="utf-8")
    (unpacked / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n", encoding="utf-8")
    for name, minor in {"null": 3, "zero": 5, "urandom": 9, "random": 8}.items():
        os.mknod(unpacked / "dev" / name, stat.S_IFCHR | 0o666, os.makedev(1, minor))
        (unpacked / "dev" / name).chmod(0o666)
    # From inside, the root's own path leads to the root: so every path means the same inside and outside.
    inside = unpacked / root.relative_to("/")
    inside.parent.mkdir(parents=True, exist_ok=True)
    inside.symlink_to("/")


def _wrappers(root: Path, sbin: Path) -> Installation:
    """Scripts with the names that :class:`RabbitNode` starts; each changes root and runs the real one."""
    folder = root / "wrappers"
    folder.mkdir(exist_ok=True)
    erts = next((root / "usr/lib/erlang").glob("erts-*/bin/epmd"), root / "usr/bin/epmd")
    for name, real in {
        "rabbitmq-server": sbin / "rabbitmq-server",
        "rabbitmqctl": sbin / "rabbitmqctl",
        "epmd": erts,
        "erl": root / "usr/bin/erl",
    }.items():
        inside = "/" + str(real.relative_to(root))
        script = folder / name
        change = f'exec /usr/sbin/chroot {root} /usr/bin/env PATH=/usr/bin:/bin:/usr/sbin {inside} "$@"'
        script.write_text(f"#!/bin/sh\n{change}\n", encoding="utf-8")
        script.chmod(0o755)
    return Installation(folder, folder / "erl")


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(command, check=True, text=True, capture_output=True, timeout=SECONDS)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        raise NotInstalledError(f"{' '.join(command[:2])} failed: {getattr(error, 'stderr', '')!s:.300}") from error
    return done.stdout
