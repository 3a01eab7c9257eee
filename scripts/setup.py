"""Set up ``.venv``: Python packages at the versions of ``requirements/``, and Feedmill's own distributions, editable.

Needs Python 3.11 and pip, or Python's ``ensurepip``; nothing else: no python3-venv package, no git, no compiler. A
second run compares one stamp file and is done. A set-up that was interrupted leaves ``.venv/unfinished`` behind, and
the next run starts anew. ``FEEDMILL_TORCH_INDEX`` names a package index to take torch from instead of PyTorch's own.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

TYPE_CHECKING = False  # the typing module's own takes a third of the time of a run that has nothing to do
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

OLDEST_PYTHON = (3, 11)
DISTRIBUTIONS = ("shared", "workers/toxic", "workers/encode", "workers/hint", "local", "rollouts")
LOCK_WAIT_SECONDS = 1800.0
PIP_SECONDS = 3600.0  # pip's own time-outs end a dead connection; this ends a pip that hangs for another reason
TORCH_INDEX = "https://download.pytorch.org/whl/cpu"
# To compile all 9000 modules takes half of the set-up's time, and a worker imports a quarter of them. Those are
# compiled by importing them once, which also shows that they load on this machine.
INSTALL_OPTIONS = ("--no-deps", "--no-compile")
FIRST_STARTS = (
    ("python", "-c", "import torch, transformers.models.bert.modeling_bert, aiohttp, aio_pika, motor.motor_asyncio"),
    ("secantusd-py", "--help"),
)
# What a user's environment may hold that would send packages past our virtual environment.
FOREIGN_VARIABLES = ("PYTHONHOME", "PYTHONPATH", "PIP_PREFIX", "PIP_ROOT", "PIP_TARGET", "PIP_REQUIRE_HASHES")


class SetupError(Exception):
    """The set-up can't go on; the text says why and what helps."""


@dataclass(frozen=True)
class Places:
    """The files and folders of a set-up, all below the repository's ``root``."""

    root: Path

    @property
    def venv(self) -> Path:
        return self.root / ".venv"

    @property
    def python(self) -> Path:
        return self.venv / "bin" / "python"

    @property
    def stamp(self) -> Path:
        return self.venv / "feedmill-setup.json"

    @property
    def unfinished(self) -> Path:
        return self.venv / "unfinished"

    def requirements(self, name: str) -> Path:
        return self.root / "requirements" / f"{name}.txt"


@dataclass(frozen=True)
class Stamp:
    """What a finished set-up was made from. A digest that differs means that packages may have to change."""

    root: str
    python: str
    runtime: str
    dev: str | None  # None: the development tools are not installed


@dataclass(frozen=True)
class TorchSource:
    """One place to take torch from: pip's options, and the exact requirement to ask for there."""

    description: str
    options: tuple[str, ...]
    requirement: str


def say(text: str) -> None:
    print(f"set-up: {text}", flush=True)


# --- What is there, and what has to be done -------------------------------------------------------------------------


def digest(places: Places, names: tuple[str, ...]) -> str:
    """SHA-256 over the inputs: these requirements files, the distributions' metadata, and this script."""
    files = [Path(__file__).resolve(), *(places.requirements(name) for name in names)]
    files += [places.root / folder / "pyproject.toml" for folder in DISTRIBUTIONS]
    sums = hashlib.sha256()
    for file in files:
        sums.update(hashlib.sha256(file.read_bytes()).digest())
    return sums.hexdigest()


def wanted_stamp(places: Places, dev: bool) -> Stamp:
    return Stamp(
        root=str(places.root),
        python=".".join(str(part) for part in sys.version_info[:2]),
        runtime=digest(places, ("build", "torch", "lock")),
        dev=digest(places, ("dev",)) if dev else None,
    )


def read_stamp(places: Places) -> Stamp | None:
    """The stamp of the last finished set-up; None if there is none or it can't be read."""
    try:
        return Stamp(**json.loads(places.stamp.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def write_stamp(places: Places, stamp: Stamp) -> None:
    """Written to the side and moved, so that a stamp is whole or absent."""
    part = places.stamp.with_suffix(".part")
    part.write_text(json.dumps(vars(stamp), indent=2) + "\n", encoding="utf-8")
    part.replace(places.stamp)


def is_ready(found: Stamp | None, wanted: Stamp) -> bool:
    """Whether nothing has to be done. Development tools that are there but not asked for do no harm."""
    if found is None or (found.root, found.python, found.runtime) != (wanted.root, wanted.python, wanted.runtime):
        return False
    return wanted.dev is None or found.dev == wanted.dev


def reason_to_start_anew(places: Places, found: Stamp | None, wanted: Stamp) -> str | None:
    """Why the virtual environment can't be built upon; None if it can (one that the user made counts as usable)."""
    if places.unfinished.exists():
        return "the last set-up was interrupted"
    if found is not None and found.root != wanted.root:
        return f"it was made in {found.root}"
    if found is not None and found.python != wanted.python:
        return f"it has Python {found.python}, and this is {wanted.python}"
    if not runs(places.python):
        return "its Python does not run"
    return None


def runs(python: Path) -> bool:
    """Whether this is a Python in a virtual environment of ours and new enough."""
    check = f"import sys; sys.exit(sys.prefix == sys.base_prefix or sys.version_info < {OLDEST_PYTHON!r})"
    try:
        return subprocess.run([str(python), "-c", check], capture_output=True, timeout=60, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


# --- Doing it -------------------------------------------------------------------------------------------------------


def pip_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The user's environment, so that their pip configuration (index, proxy, certificates) is in force, made safe."""
    clean = {name: value for name, value in environ.items() if name not in FOREIGN_VARIABLES}
    return {
        **clean,
        "PIP_USER": "0",
        "PIP_NO_INPUT": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_ROOT_USER_ACTION": "ignore",
    }


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run to its end, with the output kept; raises SetupError if it can't be started or takes an hour."""
    try:
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PIP_SECONDS,
            env=pip_environment(os.environ),
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SetupError(f"{command[0]}: {error}") from error


def output_of(done: subprocess.CompletedProcess[str]) -> str:
    text = f"{done.stdout}{done.stderr}".strip()
    return text or f"exit status {done.returncode}"


def pip(places: Places, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run([str(places.python), "-m", "pip", "-qq", *arguments])


def install(places: Places, *arguments: str) -> None:
    """``pip install`` of exactly what is named: the requirements files are complete, so nothing has to be resolved."""
    done = pip(places, "install", *INSTALL_OPTIONS, *arguments)
    if done.returncode != 0:
        raise SetupError(f"pip could not install {' '.join(arguments)}:\n{output_of(done)}")


def make_venv(places: Places) -> None:
    """A new virtual environment without pip: Debian's python3 has no ensurepip, but its venv module works without."""
    if places.venv.is_symlink() or places.venv.is_file():
        places.venv.unlink()
    elif places.venv.exists():
        shutil.rmtree(places.venv)
    places.venv.mkdir()
    places.unfinished.touch()
    done = run([base_python(), "-m", "venv", "--without-pip", str(places.venv)])
    if done.returncode != 0:
        raise SetupError(f"Python's venv module failed (on Debian: apt-get install python3-venv):\n{output_of(done)}")


def base_python() -> str:
    """The interpreter behind a virtual environment: one that is about to be deleted can't make the next."""
    return str(getattr(sys, "_base_executable", "") or sys.executable)


def install_build_tools(places: Places) -> None:
    """Our pinned pip and build backend, by a pip that is already there, else by the one that ensurepip carries."""
    arguments = ("install", "--no-deps", "-r", str(places.requirements("build")))
    if pip(places, "--version").returncode == 0:
        install(places, *arguments[2:])
        return
    outside = run([base_python(), "-m", "pip", "-qq", "--python", str(places.python), *arguments])
    if outside.returncode == 0:
        return
    if run([str(places.python), "-m", "ensurepip"]).returncode != 0:
        hint = "a pip of at least 22.3 or Python's ensurepip is needed (on Debian: apt-get install python3-pip)"
        raise SetupError(f"{hint}; pip said:\n{output_of(outside)}")
    install(places, *arguments[2:])


def torch_version(places: Places) -> str:
    found = re.search(r"^torch==(\S+)$", places.requirements("torch").read_text(encoding="utf-8"), re.MULTILINE)
    if found is None:
        raise SetupError("requirements/torch.txt: expected one line torch==VERSION")
    return found.group(1)


def torch_sources(version: str, environ: Mapping[str, str], platform: str) -> tuple[TorchSource, ...]:
    """Where to look for torch, in this order.

    On Linux, PyPI's torch brings gigabytes of CUDA libraries; the build for CPUs has the local version ``+cpu`` and
    lies on PyTorch's own index. A machine without network may have it where pip's ``find-links`` points to.
    """
    index = environ.get("FEEDMILL_TORCH_INDEX", "")
    if index:  # its address may hold a password: never printed
        return (TorchSource("the index in FEEDMILL_TORCH_INDEX", ("--index-url", index), f"torch=={version}"),)
    exact = f"torch=={version}+cpu" if platform == "linux" else f"torch=={version}"
    return (
        TorchSource("pip's find-links", ("--no-index",), exact),
        TorchSource(TORCH_INDEX, ("--index-url", TORCH_INDEX), exact),
    )


def install_torch(places: Places) -> None:
    """Torch's build for CPUs, from the first source that has it, and the proof that it is that build."""
    failures = []
    for source in torch_sources(torch_version(places), os.environ, sys.platform):
        done = pip(places, "install", *INSTALL_OPTIONS, *source.options, source.requirement)
        if done.returncode == 0:
            check_torch(places)
            return
        failures.append(f"from {source.description}: {output_of(done)}")
    hint = "set FEEDMILL_TORCH_INDEX to a package index that has torch's build for CPUs"
    raise SetupError("\n".join(("torch's build for CPUs was not found;", hint, *failures)))


def check_torch(places: Places) -> None:
    """Read from torch's own version file: to import torch takes seconds."""
    files = list(places.venv.glob("lib/python3*/site-packages/torch/version.py"))
    text = "".join(file.read_text(encoding="utf-8") for file in files)
    cuda = re.search(r"^cuda\b[^=\n]*=\s*(.+)$", text, re.MULTILINE)
    if cuda is None or cuda.group(1).strip() != "None":
        raise SetupError(
            f"expected torch's build for CPUs, found one for CUDA {cuda.group(1) if cuda else '(unknown)'}"
        )


def install_runtime(places: Places) -> None:
    say("installing pip and the build tools ...")
    install_build_tools(places)
    say(f"installing torch {torch_version(places)} (CPU build, 200 MB) ...")
    install_torch(places)
    say("installing the packages that Feedmill runs with ...")
    install(places, "-r", str(places.requirements("lock")))
    say("installing Feedmill itself ...")
    editable = [part for folder in DISTRIBUTIONS for part in ("-e", str(places.root / folder))]
    install(places, "--no-build-isolation", *editable)
    say("checking that everything loads ...")
    check_first_starts(places)


def install_dev(places: Places) -> None:
    say("installing the development tools ...")
    install(places, "-r", str(places.requirements("dev")))


def check_first_starts(places: Places) -> None:
    for program, *arguments in FIRST_STARTS:
        done = run([str(places.python.with_name(program)), *arguments])
        if done.returncode != 0:
            raise SetupError(f"what was installed does not run on this machine: {program}:\n{output_of(done)}")


def set_up(places: Places, dev: bool) -> None:
    """Bring ``.venv`` to the wanted state; raises SetupError, and leaves it marked unfinished then."""
    found, wanted = read_stamp(places), wanted_stamp(places, dev)
    if is_ready(found, wanted) and not places.unfinished.exists():
        return
    reason = reason_to_start_anew(places, found, wanted) if places.venv.exists() else None
    if reason is not None:
        say(f"making .venv anew: {reason}")
    if reason is not None or not places.venv.exists():
        make_venv(places)
    else:
        places.unfinished.touch()
    start = time.monotonic()
    if reason is not None or not is_ready(found, replace(wanted, dev=None)):
        install_runtime(places)
    if wanted.dev is not None:
        install_dev(places)
    # Development tools that were there before stay, with the digest that they were installed from.
    kept = found.dev if found is not None and reason is None else None
    write_stamp(places, replace(wanted, dev=wanted.dev or kept))
    places.unfinished.unlink()
    say(f"done in {time.monotonic() - start:.0f} s")


@contextmanager
def only_one(places: Places, wait_seconds: float = LOCK_WAIT_SECONDS) -> Iterator[None]:
    """Two ``make`` at once take turns. The lock is the kernel's: it ends with the process that holds it."""
    folder = places.root / ".cache"
    folder.mkdir(exist_ok=True)
    deadline, told = time.monotonic() + wait_seconds, False
    with (folder / "setup.lock").open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise SetupError("another set-up of this folder is still running") from None
            if not told:
                say("waiting for another set-up of this folder ...")
                told = True
            time.sleep(0.2)
        yield


def main() -> int:
    parser = argparse.ArgumentParser(description="Set up .venv. Does nothing where that is done already.")
    parser.add_argument("--dev", action="store_true", help="what tests and lint need, too")
    dev = parser.parse_args().dev
    if sys.version_info < OLDEST_PYTHON:
        say(f"Python 3.11 or newer is needed, this is {sys.version.split()[0]}; name one: make PYTHON=python3.12 ...")
        return 1
    places = Places(Path(__file__).resolve().parent.parent)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a stopped set-up stops its pip, too
    try:
        with only_one(places):
            set_up(places, dev)
    except (SetupError, OSError) as error:
        say(f"failed: {error}")
        return 1
    except KeyboardInterrupt:
        say("interrupted; the next run starts anew")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
