"""What is measured: how to start each system, how to hand it a post, and where its answers come."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pika
from pydantic import ValidationError

from feedmill.errors import ModelError
from feedmill.models.exports.record import RECORD, Export, read_export
from feedmill.models.uri import parse

HERE = Path(__file__).resolve().parent
PROGRAMS = HERE / "programs"
ROOT = HERE.parents[1]

Post = dict[str, str]
Parcel = tuple[bytes, pika.BasicProperties]
"""A message as a system takes it."""


def plain(post: Post) -> Parcel:
    """Feedmill's contract: the post itself."""
    return json.dumps(post).encode(), pika.BasicProperties(delivery_mode=2)


def celery(post: Post) -> Parcel:
    """https://docs.celeryq.dev/en/stable/internals/protocol.html, version 2"""
    task = str(uuid.uuid4())
    headers = {"lang": "py", "task": "encode", "id": task, "root_id": task, "parent_id": None, "group": None}
    properties = pika.BasicProperties(
        headers=headers,
        content_type="application/json",
        content_encoding="utf-8",
        correlation_id=task,
        delivery_mode=2,
    )
    rest = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
    return json.dumps([[post], {}, rest]).encode(), properties


def dramatiq(post: Post) -> Parcel:
    message = {
        "queue_name": "dramatiq-encode",
        "actor_name": "encode",
        "args": [post],
        "kwargs": {},
        "options": {},
        "message_id": str(uuid.uuid4()),
        "message_timestamp": int(time.time() * 1000),
    }
    return json.dumps(message).encode(), pika.BasicProperties(delivery_mode=2)


def taskiq(post: Post) -> Parcel:
    task = str(uuid.uuid4())
    message = {"task_id": task, "task_name": "encode", "labels": {}, "labels_types": {}, "args": [post], "kwargs": {}}
    headers = {"task_id": task, "task_name": "encode"}
    return json.dumps(message).encode(), pika.BasicProperties(headers=headers, delivery_mode=2)


@dataclass(frozen=True)
class System:
    """One system. ``queue`` is where it takes its messages; where it is not the contract's own, the system declares it
    itself when it starts."""

    name: str
    command: tuple[str, ...]
    share: float = 1.0
    """How many messages of a round it gets: slow ones fewer."""
    route: str = "encode"
    queue: str = ""
    parcel: Callable[[Post], Parcel] = plain
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def exchange(self) -> str:
        return {"encode": "encode-post-exchange", "toxic": "toxic-detect-exchange"}[self.route]

    @property
    def input_queue(self) -> str:
        return {"encode": "encode-post-queue", "toxic": "toxic-detect-queue"}[self.route]

    @property
    def result_queue(self) -> str:
        return {"encode": "result-encode-post-queue", "toxic": "result-detect-queue"}[self.route]


def ours() -> System:
    return System("feedmill encode", (sys.executable, "-m", "feedmill_encode"))


def workers() -> list[System]:
    """All of ours, on all that they run on."""
    encode, toxic = ours(), System("feedmill toxic", (sys.executable, "-m", "feedmill_toxic"), route="toxic")
    hint = System("feedmill hint", (sys.executable, "-m", "feedmill_hint"), route="hint")
    return [encode, *on_onnx(encode), toxic, *on_onnx(toxic), hint]


def on_onnx(system: System) -> list[System]:
    """One of ours on ONNX Runtime, in fp32 and in int8."""
    return [
        replace(
            system,
            name=f"{system.name}, onnx{'' if precision == 'fp32' else ' int8'}",
            environment={
                "FEEDMILL_BACKEND": "onnx",
                "FEEDMILL_ONNX_DIR": str(exported(system, precision)),
                "FEEDMILL_ONNX_PRECISION": precision,
            },
        )
        for precision in ("fp32", "int8")
    ]


def exported(system: System, precision: str) -> Path:
    """The folder of the exports, with the one of ``system``'s default model: made where it is not there yet."""
    folder = ROOT / ".cache" / "bench-exports"
    if not any(is_current(record) for record in folder.glob(f"{system.route}-*-{precision}-*/{RECORD}")):
        print(f"exporting {system.route} in {precision} ...", flush=True)
        command = [*system.command, "export-onnx", "--out", str(folder), "--precision", precision]
        subprocess.run(command, check=True, capture_output=True)
    return folder


def is_current(record: Path) -> bool:
    """Whether an export is whole, and of the weights that its model has now."""
    try:
        export = Export.model_validate_json(record.read_text(encoding="utf-8"))
        read_export(record.parent, parse(export.uri), export.task, export.precision)
    except (ModelError, ValidationError):
        return False
    return True


def first_systems(model: str) -> list[System]:
    python = environment("bench-venv", "requirements.txt")
    return [
        System("first system", (python, str(PROGRAMS / "first_sync.py"), model), 0.5),
        System("first system, async", (python, str(PROGRAMS / "first_async.py"), model), 0.5),
    ]


def peers(model: str, job: str = "encode") -> list[System]:
    """The frameworks, each as its command line starts it. ``job``: ``encode``, or ``nothing`` for their own cost."""
    python = environment("bench-venv", "requirements.txt")
    settings = {"PYTHONPATH": str(PROGRAMS), "BENCH_MODEL": model, "BENCH_JOB": job}
    share = 0.5 if job == "encode" else 1.0

    def framework(name: str, *command: str, queue: str = "", parcel: Callable[[Post], Parcel] = plain) -> System:
        return System(name, (python, "-m", *command), share, "encode", queue, parcel, settings)

    log = ("--loglevel", "warning")
    found = [
        framework("celery", "celery", "-A", "celery_app", "worker", *log, queue="celery-encode", parcel=celery),
        framework("dramatiq", "dramatiq", "dramatiq_app", queue="dramatiq-encode", parcel=dramatiq),
        framework("faststream", "faststream", "run", "faststream_app:app"),
        framework("taskiq", "taskiq", "worker", "taskiq_app:broker", queue="taskiq", parcel=taskiq),
    ]
    if job == "encode":
        own = environment("bench-infinity-venv", "requirements-infinity.txt")
        found.append(System("infinity", (own, str(PROGRAMS / "infinity_app.py")), 0.5, environment=settings))
    return found


def without_a_model() -> list[System]:
    return [
        System("feedmill, no model", (sys.executable, str(PROGRAMS / "nothing.py"))),
        System("bare aiormq", (sys.executable, str(PROGRAMS / "bare.py"))),
    ]


def toxic_systems(folder: Path) -> list[System]:
    """The default model, BERT-base and T5-small's shape with random weights, ours and one text at a time.

    The first system knows nothing of the default model's adapter: beside that runs a plain classifier of its size.
    """
    from random_models import make_bert, make_minilm, make_t5

    python = environment("bench-venv", "requirements.txt")
    small, bert, writer = (
        str(make(folder / name))
        for make, name in ((make_minilm, "minilm"), (make_bert, "bert-base"), (make_t5, "t5-small"))
    )
    labels = {"FEEDMILL_TOXIC_LABELS": "toxic", "FEEDMILL_CLEAN_LABELS": "clean", "FEEDMILL_TEXT_PREFIX": ""}
    command = (sys.executable, "-m", "feedmill_toxic")

    def toxic(name: str, command: tuple[str, ...], share: float, **settings: str) -> System:
        return System(name, command, share, "toxic", environment=settings)

    def first(name: str, share: float, model: str) -> System:
        return toxic(f"first system, {name}", (python, str(PROGRAMS / "first_toxic.py"), model), share)

    own = toxic("feedmill toxic, default model", command, 1.0)
    return [
        first("default model's size", 0.5, small),
        own,
        *on_onnx(own),
        first("BERT-base", 0.1, bert),
        toxic("feedmill toxic, BERT-base", command, 0.2, FEEDMILL_MODEL=f"file://{bert}", **labels),
        first("T5-small", 0.2, writer),
        toxic("feedmill toxic, T5-small", command, 0.4, FEEDMILL_MODEL=f"file://{writer}", **labels),
    ]


def environment(name: str, requirements: str) -> str:
    """The Python of a virtual environment for what Feedmill itself never needs, made where it is not there yet. It
    sees the project's packages behind its own."""
    folder = ROOT / ".cache" / name
    python, wanted = folder / "bin" / "python", HERE / requirements
    done = folder / "done"
    if not done.exists() or done.read_text(encoding="utf-8") != wanted.read_text(encoding="utf-8"):
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
        site = next(folder.glob("lib/python*/site-packages"))
        project = next((ROOT / ".venv").glob("lib/python*/site-packages"))
        (site / "zz_project.pth").write_text(f"{project}\n", encoding="utf-8")
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", "-r", str(wanted)], check=True)
        done.write_text(wanted.read_text(encoding="utf-8"), encoding="utf-8")
    return str(python)
