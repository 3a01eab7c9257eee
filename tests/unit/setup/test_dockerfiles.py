"""The workers' Dockerfiles: ordinary, restricted, and alike where they share layers."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]
WORKERS = ("toxic", "encode", "hint")


def lines(worker: str) -> list[str]:
    return (REPOSITORY / "workers" / worker / "Dockerfile").read_text().splitlines()


def stage(worker: str, name: str) -> list[str]:
    """The instructions of one stage."""
    text = lines(worker)
    begin = next(number for number, line in enumerate(text) if line.endswith(f" AS {name}"))
    rest = text[begin:]
    end = next((number for number, line in enumerate(rest) if number and line.startswith("FROM ")), len(rest))
    return [line for line in rest[:end] if line and not line.startswith("#")]


@pytest.mark.parametrize("name", ["tools", "torch", "libraries", "weights"])
def test_toxic_and_encode_share_all_layers_but_their_own(name: str) -> None:
    assert stage("toxic", name) == stage("encode", name)


@pytest.mark.parametrize("worker", WORKERS)
def test_every_builder_understands_it(worker: str) -> None:
    text = "\n".join(lines(worker))
    assert "syntax=" not in text
    assert not re.search(r"^RUN --|<<", text, re.MULTILINE), "BuildKit only"
    assert "ARG PYTHON_IMAGE=docker.io/library/python:3.11-slim-bookworm" in lines(worker)


@pytest.mark.parametrize("worker", WORKERS)
def test_runs_without_root_and_without_a_shell_around_the_worker(worker: str) -> None:
    assert "USER 10001:10001" in lines(worker)
    assert f'ENTRYPOINT ["python3", "-m", "feedmill_{worker}"]' in lines(worker)


@pytest.mark.parametrize("worker", WORKERS)
def test_installs_what_is_locked_and_resolves_nothing(worker: str) -> None:
    installs = [line for line in lines(worker) if "pip " in line and " install " in line]
    assert len(installs) >= 2
    # What torch's build for CUDA needs is pinned by torch itself; the list is empty for the build for CPUs.
    assert all("--no-deps" in line for line in installs if "cuda.txt" not in line)


def test_all_that_is_copied_reaches_the_build() -> None:
    """.dockerignore lets nothing through but what it names."""
    allowed = {line[1:] for line in (REPOSITORY / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for worker in WORKERS:
        for line in lines(worker):
            if line.startswith("COPY ") and "--from" not in line:
                source = line.split()[1].rstrip("/")
                assert (REPOSITORY / source).exists(), source
                assert source in allowed or source.split("/")[0] in allowed - {"scripts"}, source
