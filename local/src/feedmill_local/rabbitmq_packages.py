"""Find RabbitMQ's programs: an installation, or Debian's packages unpacked into a private folder.

Nothing is installed and nothing is started: the packages are only downloaded (by apt, which checks their signatures)
and unpacked. That needs no root.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from feedmill.errors import shorten
from feedmill_local.errors import NotInstalledError
from feedmill_local.locks import locked

# Erlang's parts that a broker needs: https://www.rabbitmq.com/docs/install-debian ("Cloudsmith ... Erlang packages").
PACKAGES = (
    "rabbitmq-server",
    "erlang-base",
    *(f"erlang-{part}" for part in ("asn1", "crypto", "eldap", "ftp", "inets", "mnesia", "os-mon", "parsetools")),
    *(f"erlang-{part}" for part in ("public-key", "runtime-tools", "snmp", "ssl", "syntax-tools", "tftp", "tools")),
    "erlang-xmerl",
)
ADVICE = (
    "Install it (on Debian and Ubuntu: apt install rabbitmq-server), or use Docker (--docker), "
    "or set RABBITMQ_URL to a broker that you already run."
)
DOWNLOAD_TIMEOUT_SECONDS = 600.0


@dataclass(frozen=True)
class Installation:
    """``sbin``: the folder of RabbitMQ's plain scripts (not of the wrappers, which change user); ``erl``: Erlang."""

    sbin: Path
    erl: Path

    @property
    def epmd(self) -> Path:
        """Erlang's port mapper, which lies beside ``erl`` itself."""
        return self.erl.resolve().with_name("epmd")


def cache_folder() -> Path:
    """``$FEEDMILL_CACHE``, else ``feedmill`` in the user's cache folder (``$XDG_CACHE_HOME``, ``~/.cache``)."""
    own = os.environ.get("FEEDMILL_CACHE")
    return Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "feedmill"


def find_or_download(cache: Path | None = None) -> Installation:
    """An installed RabbitMQ; else the one in ``cache``, which is filled first where it is empty and apt is there.

    Raises:
        NotInstalledError: there is none and it can't be downloaded; the text says what to do.
    """
    folder = cache or cache_folder()
    return find_installed() or find_unpacked(folder) or _download(folder)


def find_installed(root: Path = Path("/")) -> Installation | None:
    """RabbitMQ and Erlang from the system's packages, Homebrew, or a tarball whose sbin is on the PATH."""
    erl = shutil.which("erl")
    if erl is None:
        return None
    folders = [path.parent for path in (root / "usr/lib/rabbitmq/lib").glob("rabbitmq_server-*/sbin/rabbitmq-server")]
    on_path = shutil.which("rabbitmq-server")
    if on_path is not None:
        folders.append(Path(on_path).resolve().parent)
    plain = (folder for folder in folders if (folder / "rabbitmq-env").is_file())
    return next((Installation(folder, Path(erl)) for folder in plain), None)


def find_unpacked(cache: Path) -> Installation | None:
    """What an earlier run of :func:`find_or_download` left; the newest, should there be several."""
    roots = sorted(cache.glob("rabbitmq-*/usr"), key=lambda path: path.stat().st_mtime, reverse=True)
    for root in roots:
        sbin = next(root.glob("lib/rabbitmq/lib/rabbitmq_server-*/sbin"), None)
        if sbin is not None and (root / "lib/erlang/bin/erl").is_file():
            return Installation(sbin, root / "lib/erlang/bin/erl")
    return None


def _download(cache: Path) -> Installation:
    if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
        raise NotInstalledError(f"RabbitMQ is not installed, and there is no apt to download it with. {ADVICE}")
    cache.mkdir(parents=True, exist_ok=True)
    with locked(cache / "rabbitmq.lock", DOWNLOAD_TIMEOUT_SECONDS):
        found = find_unpacked(cache)  # by the one who held the lock
        if found is not None:
            return found
        with tempfile.TemporaryDirectory(dir=cache, prefix=".rabbitmq-") as scratch:
            return _download_into(cache, Path(scratch))


def _download_into(cache: Path, scratch: Path) -> Installation:
    archives, root = scratch / "archives", scratch / "root"
    archives.mkdir()
    root.mkdir()
    _fetch(archives, scratch)
    for archive in sorted(archives.glob("*.deb")):
        _run(["dpkg", "-x", str(archive), str(root)], scratch)
    _make_relocatable(root / "usr/lib/erlang/bin/erl")
    version = next(root.glob("usr/lib/rabbitmq/lib/rabbitmq_server-*")).name.removeprefix("rabbitmq_server-")
    # The rename is atomic: nobody ever sees half of it.
    root.rename(cache / f"rabbitmq-{version}-{os.uname().machine}")
    found = find_unpacked(cache)
    if found is None:
        raise NotInstalledError(f"the packages of RabbitMQ hold no sbin/rabbitmq-server or no bin/erl. {ADVICE}")
    return found


def _fetch(archives: Path, scratch: Path) -> None:
    """Download the packages by the system's package lists; where these are missing or stale, by lists of our own."""
    download = ["apt-get", "download", "-q", "-o", f"APT::Sandbox::User={_user()}", *PACKAGES]
    try:
        _run(download, archives)
    except NotInstalledError:
        (scratch / "lists/partial").mkdir(parents=True)
        own_lists = ["-o", f"Dir::State::lists={scratch / 'lists'}", "-o", f"Dir::Cache={scratch}"]
        _run(["apt-get", "update", "-q", "-o", f"APT::Sandbox::User={_user()}", *own_lists], scratch)
        _run([*download, *own_lists], archives)


def _user() -> str:
    """apt drops root for user _apt, who can't write to our folder. Signatures are checked all the same."""
    return "root" if os.geteuid() == 0 else ""


def _make_relocatable(script: Path) -> None:
    """Debian's ``erl`` names /usr/lib/erlang; let it find its own place instead."""
    text = script.read_text(encoding="utf-8")
    own_place = 'ROOTDIR="$(dirname "$(dirname "$(readlink -f "$0")")")"'
    script.write_text(text.replace("ROOTDIR=/usr/lib/erlang", own_place), encoding="utf-8")


def _run(command: list[str], folder: Path) -> None:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
    try:
        subprocess.run(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=DOWNLOAD_TIMEOUT_SECONDS,
            check=True,
            text=True,
        )
    except subprocess.CalledProcessError as error:
        reason = shorten(error.stdout[-400:])
        raise NotInstalledError(
            f"RabbitMQ is not installed, and {' '.join(command[:2])} failed: {reason}. {ADVICE}"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise NotInstalledError(
            f"{' '.join(command[:2])} took over {DOWNLOAD_TIMEOUT_SECONDS:.0f} s. {ADVICE}"
        ) from error
