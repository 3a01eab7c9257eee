"""requirements/*.txt: exact, complete, without CUDA, and what is installed."""

from __future__ import annotations

import importlib.util
import re
import sys
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).resolve().parents[3]


def _load():
    spec = importlib.util.spec_from_file_location("feedmill_lock_script", REPOSITORY / "scripts" / "lock.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


lock = _load()
NAMES = tuple(lock_file.name for lock_file in lock.LOCK_FILES)


def pins(name: str) -> dict[str, str]:
    lines = (REPOSITORY / "requirements" / f"{name}.txt").read_text().splitlines()
    matches = [re.fullmatch(r"([a-z0-9.-]+)==(\S+)(  # .+)?", line) for line in lines if line and line[0] != "#"]
    assert all(matches), f"requirements/{name}.txt: expected only lines like name==version"
    return {match[1]: match[2] for match in matches if match}


@pytest.mark.parametrize("name", [name for name in NAMES if name != "build"])
def test_the_files_hold_what_is_installed_and_needed(name):
    (lock_file,) = (candidate for candidate in lock.LOCK_FILES if candidate.name == name)
    text = (REPOSITORY / "requirements" / f"{name}.txt").read_text()
    assert text == lock.render(lock_file), "run make setup-dev, or after a change of dependencies make lock"


def test_every_pin_satisfies_all_who_need_it():
    everything = {name: version for file in NAMES for name, version in pins(file).items()}
    holders = [*everything, *lock.OURS]
    for holder in holders:
        for need in lock.requirements_of(Requirement(holder)):
            name = canonicalize_name(need.name)
            if name in lock.OURS | lock.LEFT_OUT:
                continue
            assert name in everything, f"{holder} needs {name}"
            assert need.specifier.contains(everything[name], prereleases=True), f"{holder} needs {need}"


def test_torch_is_pinned_once_and_nothing_of_cuda_comes_along():
    assert set(pins("torch")) == {"torch"}
    others = {name for file in NAMES if file != "torch" for name in pins(file)}
    assert not {name for name in others if re.match(r"nvidia|cuda|triton|torch|sentence-transformers", name)}


def test_files_that_repeat_a_package_agree():
    seen: dict[str, str] = {}
    for file in NAMES:
        for name, version in pins(file).items():
            assert seen.setdefault(name, version) == version


def test_what_is_needed_to_run_is_not_a_development_tool():
    assert not set(pins("lock")) & {"pytest", "mypy", "ruff", "hypothesis", "coverage"}


def test_the_locked_torch_is_the_installed_one():
    assert distribution("torch").version.partition("+")[0] == pins("torch")["torch"]


@pytest.mark.parametrize("file", ["images/hint", "images/models", "images/onnx", "images/weights"])
def test_an_image_holds_its_workers_closure_only(file):
    assert not {"secantusdb", "pytest", "hatchling"} & set(pins(file))
    if file == "images/hint":
        assert not {"torch", "transformers", "tokenizers", "safetensors"} & set(pins(file))
    if file == "images/onnx":
        assert not {"torch", "transformers", "safetensors", "onnx"} & set(pins(file))
