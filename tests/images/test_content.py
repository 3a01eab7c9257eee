"""What is in the images, and that what was cut from the libraries is not missed."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from support.images import USER, docker, image, restricted

REPOSITORY = Path(__file__).resolve().parents[2]
WORKERS = ("toxic", "encode", "hint")
# Over the base image, in MB (10^6 bytes), as `docker images` counts.
LARGEST_MB = {"toxic": 900, "encode": 900, "hint": 200}
EXERCISES = REPOSITORY / "tests" / "images" / "exercise_torch.py"


def run_python(worker: str, code: str) -> str:
    """Run Python in a new container of the image, without network and as restricted as a worker."""
    options = [*restricted("1g"), "--network", "none", "--rm", "--interactive", "--entrypoint", "python3"]
    return docker("run", *options, image(worker), "-", text=code, timeout=300)


@pytest.fixture(params=WORKERS)
def worker(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_runs_as_a_numbered_user_and_says_what_it_is(worker: str) -> None:
    (config,) = json.loads(docker("inspect", "--format", "[{{json .Config}}]", image(worker)))
    assert config["User"] == USER
    assert config["Entrypoint"] == ["python3", "-m", f"feedmill_{worker}"]
    labels = {name.rpartition(".")[2] for name in config["Labels"]}
    assert {"title", "description", "licenses", "version", "revision"} <= labels


def test_has_no_build_tools_no_caches_and_its_modules_compiled(worker: str) -> None:
    found = json.loads(
        run_python(
            worker,
            "import json, pathlib, shutil, sys\n"
            "site = pathlib.Path(next(p for p in sys.path if p.startswith('/opt/feedmill')))\n"
            "print(json.dumps({\n"
            " 'tools': [t for t in ('gcc', 'cc', 'make', 'git', 'curl', 'strip') if shutil.which(t)],\n"
            " 'packages': [p.name for p in site.iterdir() if p.name in ('pip', 'hatchling', 'wheel', 'pytest')],\n"
            " 'caches': [p for p in ('/wheels', '/build', '/opt/tools', '/tmp/.cache') if pathlib.Path(p).exists()],\n"
            " 'sources': [str(p) for p in site.rglob('*.py')\n"
            "   if not list((p.parent / '__pycache__').glob(p.stem + '.*.pyc'))],\n"
            " 'torch': (site / 'torch').exists()}))",
        )
    )
    # Rare families of models are left to be compiled when they are imported; one file has the syntax of Python 3.12.
    left = ("/transformers/models/", "/torch/testing/_internal/py312_")
    uncompiled = [path for path in found.pop("sources") if not any(part in path for part in left)]
    assert found == {"tools": [], "packages": [], "caches": [], "torch": worker != "hint"}
    assert not uncompiled


def test_stays_small(worker: str, record_property) -> None:
    layers = docker("history", "--no-trunc", "--human=false", "--format", "{{.Size}} {{.CreatedBy}}", image(worker))
    # The classic builder and BuildKit write it in their own ways.
    own = sum(
        int(line.split(maxsplit=1)[0]) for line in layers.splitlines() if re.search(r"COPY (dir|--from|/opt)", line)
    )
    record_property("mb_over_the_base", own // 10**6)
    assert 0 < own // 10**6 <= LARGEST_MB[worker]


def test_metadata_lists_every_package_for_a_bill_of_materials(worker: str) -> None:
    lines = run_python(worker, "from importlib.metadata import distributions as d\nfor p in d(): print(p.name)")
    names = {re.sub(r"[-_.]+", "-", name).lower() for name in lines.split()}
    files = ["images/hint"] if worker == "hint" else ["torch", "images/models", "images/weights"]
    text = "\n".join((REPOSITORY / "requirements" / f"{file}.txt").read_text() for file in files)
    assert names >= set(re.findall(r"^([a-z0-9.-]+)==", text, re.MULTILINE)) | {"feedmill", f"feedmill-{worker}"}


@pytest.mark.parametrize("worker", ["toxic", "encode"])
def test_what_is_left_of_torch_and_transformers_works(worker: str) -> None:
    assert run_python(worker, EXERCISES.read_text()).splitlines()[-1] == "all exercises passed"


def test_hint_imports_all_that_it_has() -> None:
    code = (
        "import importlib, numpy, numpy.testing, numpy.linalg, numpy.random, motor.motor_asyncio, pymongo, aio_pika\n"
        "import opentelemetry.exporter.otlp.proto.http.trace_exporter, opentelemetry.sdk.trace\n"
        "a = numpy.random.default_rng(1).random((64, 64)); numpy.linalg.svd(a @ a.T)\n"
        "import faiss; index = faiss.index_factory(64, 'IVF4,Flat'); b = a.astype('float32')\n"
        "index.train(b); index.add(b)\n"
        "print('fine', index.search(b[:1], 1)[1][0][0])"
    )
    assert run_python("hint", code) == "fine 0"
