"""Finding RabbitMQ's programs, and what a person is told where there are none."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from feedmill_local.errors import NotInstalledError
from feedmill_local.rabbitmq_packages import PACKAGES, find_installed, find_or_download, find_unpacked

FAKE_APT = """#!/bin/sh
echo "$@" >> {calls}
for last in "$@"; do :; done
: > rabbitmq-server.deb
"""
FAKE_DPKG = """#!/bin/sh
mkdir -p "$3/usr/lib/rabbitmq/lib/rabbitmq_server-9.9.9/sbin" "$3/usr/lib/erlang/bin"
echo 'ROOTDIR=/usr/lib/erlang' > "$3/usr/lib/erlang/bin/erl"
"""


def program(folder: Path, name: str, text: str = "#!/bin/sh\n") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.fixture
def bin_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder on the PATH, besides what a shell script needs."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("mkdir", "sh"):
        (folder / name).symlink_to(Path("/bin") / name)
    monkeypatch.setenv("PATH", str(folder))
    return folder


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def test_without_apt_the_error_says_what_to_do(bin_folder: Path, cache: Path) -> None:
    with pytest.raises(NotInstalledError) as caught:
        find_or_download(cache)
    for advice in ("not installed", "no apt", "apt install rabbitmq-server", "Docker", "RABBITMQ_URL"):
        assert advice in str(caught.value)
    assert not cache.exists()


def test_a_failing_apt_is_quoted_and_leaves_nothing(bin_folder: Path, cache: Path) -> None:
    program(bin_folder, "apt-get", "#!/bin/sh\necho 'E: no network here'; exit 100\n")
    program(bin_folder, "dpkg")
    with pytest.raises(NotInstalledError, match=r"no network here.*apt install rabbitmq-server"):
        find_or_download(cache)
    assert [path.name for path in cache.iterdir()] == ["rabbitmq.lock"]


def test_stale_package_lists_are_replaced_by_lists_of_our_own(bin_folder: Path, cache: Path, tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    stale = f'case "$*" in *Dir::State::lists*) ;; *) echo "404 Not Found"; exit 100;; esac\n{FAKE_APT[10:]}'
    program(bin_folder, "apt-get", "#!/bin/sh\n" + stale.format(calls=calls))
    program(bin_folder, "dpkg", FAKE_DPKG)
    assert find_or_download(cache).sbin.is_dir()
    update, download = calls.read_text().splitlines()
    assert update.startswith("update")
    assert download.startswith("download")
    assert all(package in download for package in PACKAGES)


def test_two_processes_at_once_download_once(bin_folder: Path, cache: Path, tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    program(bin_folder, "apt-get", FAKE_APT.format(calls=calls))
    program(bin_folder, "dpkg", FAKE_DPKG)
    code = "import pathlib, sys; from feedmill_local import rabbitmq_packages as r; "
    code += "print(r.find_or_download(pathlib.Path(sys.argv[1])).erl)"
    runs = [
        subprocess.Popen([sys.executable, "-c", code, str(cache)], stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    answers = {run.communicate(timeout=60)[0].strip() for run in runs}
    assert answers == {str(cache / f"rabbitmq-9.9.9-{os.uname().machine}/usr/lib/erlang/bin/erl")}
    assert len(calls.read_text().splitlines()) == 1


def test_the_unpacked_erlang_finds_its_own_place(bin_folder: Path, cache: Path, tmp_path: Path) -> None:
    program(bin_folder, "apt-get", FAKE_APT.format(calls=tmp_path / "calls"))
    program(bin_folder, "dpkg", FAKE_DPKG)
    erl = find_or_download(cache).erl
    assert "/usr/lib/erlang" not in erl.read_text()
    assert find_unpacked(cache) == find_or_download(cache)


def test_an_installed_rabbitmq_is_used_by_its_plain_scripts(bin_folder: Path, tmp_path: Path) -> None:
    sbin = tmp_path / "usr/lib/rabbitmq/lib/rabbitmq_server-3.12.1/sbin"
    program(sbin, "rabbitmq-server")
    program(sbin, "rabbitmq-env")
    assert find_installed(tmp_path) is None  # no Erlang yet
    erl = program(bin_folder, "erl")
    found = find_installed(tmp_path)
    assert found is not None
    assert (found.sbin, found.erl) == (sbin, erl)


def test_a_wrapper_that_changes_user_is_not_used(bin_folder: Path, tmp_path: Path) -> None:
    program(bin_folder, "erl")
    program(bin_folder, "rabbitmq-server")  # as in /usr/sbin: no rabbitmq-env beside it
    assert find_installed(tmp_path) is None
    program(tmp_path / "tarball/sbin", "rabbitmq-server")
    program(tmp_path / "tarball/sbin", "rabbitmq-env")
    (bin_folder / "rabbitmq-server").unlink()
    (bin_folder / "rabbitmq-server").symlink_to(tmp_path / "tarball/sbin/rabbitmq-server")
    found = find_installed(tmp_path)
    assert found is not None
    assert found.sbin == tmp_path / "tarball/sbin"
