"""Fetch another version of RabbitMQ, from another suite of Debian, into a folder: nothing of the machine is touched.

``other_broker.py SUITE FOLDER`` unpacks the packages of trixie (4.0), sid (the newest) or bookworm (3.10) into
``FOLDER/rabbitmq-SUITE-VERSION``; with FEEDMILL_CACHE=FOLDER the tests run against it. apt checks the signatures. The
suite's own C library comes along, as its programs need it: each is put behind a line that starts it with that library's
loader, so that neither a chroot nor root is needed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

from feedmill_local.rabbitmq_packages import PACKAGES, find_unpacked

LIBRARIES = (
    "libc6",
    "libcap2",
    "libgcc-s1",
    "libncurses6",
    "libsctp1",
    "libssl3t64",
    "libstdc++6",
    "libsystemd0",
    "libtinfo6",
    "libzstd1",
    "zlib1g",
)
BEFORE_TRIXIE = {"libssl3t64": "libssl3"}
PROGRAMS = ("bin/*", "erts-*/bin/*", "lib/*/priv/bin/*")
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
TIMEOUT_SECONDS = 600.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suite", choices=("bookworm", "trixie", "sid"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--mirror", default="http://deb.debian.org/debian")
    given = parser.parse_args()
    if shutil.which("erl"):
        print(
            "an Erlang is installed here, so its RabbitMQ would be taken instead: run this elsewhere", file=sys.stderr
        )
        return 1
    folder = given.folder.resolve()
    if find_unpacked(folder) is None:
        fetch(given.suite, given.mirror, folder)
    if (found := find_unpacked(folder)) is None:
        print(f"no RabbitMQ in {folder}", file=sys.stderr)
        return 1
    print(found.sbin.parent.name)
    return 0


def fetch(suite: str, mirror: str, folder: Path) -> None:
    scratch = folder / "scratch"
    shutil.rmtree(scratch, ignore_errors=True)
    for name in ("lists/partial", "cache/archives/partial", "debs", "root"):
        (scratch / name).mkdir(parents=True)
    (scratch / "sources.list").write_text(f"deb [signed-by={KEYRING}] {mirror} {suite} main\n")
    apt = [
        "apt-get",
        *("-q", "-o", f"Dir::Etc::sourcelist={scratch / 'sources.list'}", "-o", "Dir::Etc::sourceparts=/dev/null"),
        *("-o", f"Dir::State::lists={scratch / 'lists'}", "-o", f"Dir::Cache={scratch / 'cache'}"),
        *("-o", "Dir::State::status=/dev/null", "-o", f"APT::Sandbox::User={'root' if os.geteuid() == 0 else ''}"),
    ]
    libraries = [BEFORE_TRIXIE.get(name, name) if suite == "bookworm" else name for name in LIBRARIES]
    run([*apt, "update"], scratch)
    run([*apt, "download", *PACKAGES, *libraries], scratch / "debs")
    for archive in sorted((scratch / "debs").glob("*.deb")):
        run(["dpkg", "-x", str(archive), str(scratch / "root")], scratch)
    server = next((scratch / "root").glob("usr/lib/rabbitmq/lib/rabbitmq_server-*")).name
    root = folder / f"rabbitmq-{suite}-{server.removeprefix('rabbitmq_server-')}"
    (scratch / "root").rename(root)
    shutil.rmtree(scratch)
    make_relocatable(root)


def make_relocatable(root: Path) -> None:
    """Let Erlang's scripts find their own place, and start its programs with the C library that came with them."""
    erlang, libraries = root / "usr/lib/erlang", root / f"usr/lib/{os.uname().machine}-linux-gnu"
    loader = next(path for path in libraries.glob("ld-linux-*.so.*"))
    for program in [path for place in PROGRAMS for path in erlang.glob(place)]:
        if program.is_symlink() or not program.is_file():
            continue
        with program.open("rb") as file:
            is_program = file.read(4) == b"\x7fELF"
        if is_program:
            real = program.rename(program.with_name(f"{program.name}.real"))
            program.write_text(f'#!/bin/sh\nexec "{loader}" --argv0 "$0" --library-path "{libraries}" "{real}" "$@"\n')
            program.chmod(0o755)
    for script in (erlang / "bin/erl", erlang / "bin/start"):
        script.write_text(script.read_text().replace("ROOTDIR=/usr/lib/erlang", f'ROOTDIR="{erlang}"'))


def run(command: list[str], folder: Path) -> None:
    done = subprocess.run(
        command,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{' '.join(command[:1])} failed: {(done.stderr or done.stdout)[-400:]}")


if __name__ == "__main__":
    sys.exit(main())
