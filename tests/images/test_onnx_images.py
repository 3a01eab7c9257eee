"""The images that run on ONNX Runtime: no torch, small, and their exports answer in both precisions."""

from __future__ import annotations

import json
import os
import re

import pytest

from feedmill.contract import ROUTES
from support.amqp import connect
from support.images import USER, container, docker, image, restricted
from support.workers import Servers

IMAGES = ("toxic-onnx", "encode-onnx")
NEEDED = "NEED_ONNX_IMAGES" in os.environ
"""Set by ``make ci-images-onnx``; elsewhere they are tested where they were built."""
LARGEST_MB = 420


@pytest.fixture(params=["toxic", "encode"])
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def run_python(name: str, code: str) -> str:
    options = [*restricted("1g"), "--network", "none", "--rm", "--interactive", "--entrypoint", "python3"]
    return docker("run", *options, image(f"{name}-onnx"), "-", text=code, timeout=120)


def test_has_no_torch_and_answers(name: str) -> None:
    code = (
        "import importlib.util as u, json, os\n"
        "from feedmill.settings import ModelSettings\n"
        "answers = []\n"
        "for precision in ('fp32', 'int8'):\n"
        "    settings = ModelSettings(onnx_precision=precision)\n"
    )
    if name == "encode":
        code += (
            "    from feedmill.models.encoder import load_encoder\n    from feedmill_encode import DEFAULT_MODEL\n"
            "    model = load_encoder(settings, DEFAULT_MODEL)\n"
            "    answers.append(len(model.encode(model.tokenize(['a post']))[0]))\n"
        )
    else:
        code += (
            "    from feedmill.models.classifier import load_classifier\n    from feedmill_toxic import DEFAULT_MODEL\n"
            "    model = load_classifier(settings, DEFAULT_MODEL)\n"
            "    scores = model.judge(model.classifier.tokenize(['you are a stupid idiot']))[0]\n"
            "    answers.append(model.policy.is_toxic(scores))\n"
        )
    absent = ("torch", "transformers", "onnx", "sympy")
    code += f"print(json.dumps([answers, [n for n in {absent} if u.find_spec(n)], os.environ['FEEDMILL_BACKEND']]))\n"
    answers, found, backend = json.loads(run_python(name, code).splitlines()[-1])
    assert answers == ([384, 384] if name == "encode" else [True, True])
    assert (found, backend) == ([], "onnx")


def test_stays_small_and_restricted(name: str, record_property) -> None:
    found = image(f"{name}-onnx")
    (config,) = json.loads(docker("inspect", "--format", "[{{json .Config}}]", found))
    assert (config["User"], config["Entrypoint"]) == (USER, ["python3", "-m", f"feedmill_{name}"])
    layers = docker("history", "--no-trunc", "--human=false", "--format", "{{.Size}} {{.CreatedBy}}", found)
    own = sum(
        int(line.split(maxsplit=1)[0]) for line in layers.splitlines() if re.search(r"COPY (dir|--from|/opt)", line)
    )
    record_property("mb_over_the_base", own // 10**6)
    assert 0 < own // 10**6 <= LARGEST_MB


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_works_and_ends_as_the_chart_runs_it(servers: Servers, name: str, precision: str, record_property) -> None:
    route = ROUTES[name]
    ids = [f"{number:024x}" for number in range(40)]
    with (
        container(name, servers, variant="-onnx", FEEDMILL_ONNX_PRECISION=precision) as running,
        connect(servers.rabbit_url) as client,
    ):
        record_property("start_to_ready_seconds", round(running.until_ready(), 1))
        for number in ids:
            client.publish(route.exchange, route.queue, {"_id": number, "content": f"post {number}, a few words"})
        answers = client.take(route.result_queue, len(ids), 60)
        assert sorted(answer.json["id" if name == "encode" else "commentId"] for answer in answers) == ids
        record_property("peak_mb", running.peak_mb())
        assert running.terminate() == 0, running.tail()
