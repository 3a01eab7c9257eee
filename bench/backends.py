"""torch, ONNX Runtime in fp32 and in int8, side by side on the same texts, in turns: speed, memory, start.

    .venv/bin/python bench/backends.py [--texts 600] [--rounds 3] [--worker toxic]

Each measurement is a process of its own, so that one's memory is not the other's. The model alone: no broker.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent / "throughput"))

BACKENDS = {
    "torch": {"FEEDMILL_BACKEND": "torch"},
    "onnx fp32": {"FEEDMILL_BACKEND": "onnx", "FEEDMILL_ONNX_PRECISION": "fp32"},
    "onnx int8": {"FEEDMILL_BACKEND": "onnx", "FEEDMILL_ONNX_PRECISION": "int8"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--worker", choices=("encode", "toxic"), default="encode")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.worker, options.texts)))
        return
    with tempfile.TemporaryDirectory() as root:
        for precision in ("fp32", "int8"):
            command = [sys.executable, "-m", f"feedmill_{options.worker}", "export-onnx", "--out", root]
            done = subprocess.run([*command, "--precision", precision], check=True, capture_output=True, text=True)
            print(precision, *done.stdout.splitlines()[:-1], sep="\n  ")
        found: dict[str, list[dict[str, float]]] = {name: [] for name in BACKENDS}
        for _ in range(options.rounds):
            for name, settings in BACKENDS.items():
                environment = {**os.environ, **settings, "FEEDMILL_ONNX_DIR": root, "BEGAN": str(time.time())}
                command = [sys.executable, __file__, "--one", "--worker", options.worker, "--texts", str(options.texts)]
                done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
                found[name].append(json.loads(done.stdout.splitlines()[-1]))
    columns = list(found["torch"][0])
    print(f"\n| {options.worker} | {' | '.join(columns)} |\n|{'---|' * (len(columns) + 1)}")
    for name, rounds in found.items():
        cells = [
            f"{statistics.median(entry[column] for entry in rounds):.2f}"
            f" ({min(entry[column] for entry in rounds):.2f} to {max(entry[column] for entry in rounds):.2f})"
            for column in columns
        ]
        print(f"| {name} | {' | '.join(cells)} |")


def measure(worker: str, count: int) -> dict[str, float]:
    """One process: from its start to the first answer, then all texts on all lanes."""
    python = time.time() - float(os.environ["BEGAN"])
    began = time.perf_counter()
    __import__(f"feedmill_{worker}.worker")
    imported = time.perf_counter()
    tokenize, forward, lanes = load(worker)
    ready = time.perf_counter()
    idle = status("VmRSS")
    from texts import posts

    from feedmill.models.batches import packed_batches

    tokens = tokenize([post["content"] for post in posts(count)])
    batches = [[tokens[index] for index in group] for group in packed_batches([text.cost for text in tokens], 1024)]
    with ThreadPoolExecutor(lanes) as executor:
        list(executor.map(forward, batches[:lanes]))
        wall, cpu = time.perf_counter(), time.process_time()
        list(executor.map(forward, batches))
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {
        "texts/s": count / wall,
        "texts/CPU s": count / cpu,
        "Python s": python,
        "imports s": imported - began,
        "model s": ready - imported,
        "idle MB": idle,
        "peak MB": status("VmHWM"),
    }


def load(worker: str) -> tuple[Callable[[Sequence[str]], list[Any]], Callable[[Sequence[Any]], Any], int]:
    from feedmill.settings import ModelSettings, read

    settings = read(ModelSettings)
    if worker == "encode":
        from feedmill.models.encoder import load_encoder
        from feedmill_encode import DEFAULT_MODEL as ENCODER

        encoder = load_encoder(settings, ENCODER)
        encoder.warm_up()
        return encoder.tokenize, encoder.encode, encoder.lanes
    from feedmill.models.classifier import load_classifier
    from feedmill_toxic import DEFAULT_MODEL as CLASSIFIER

    classifier = load_classifier(settings, CLASSIFIER).classifier
    classifier.warm_up()
    return classifier.tokenize, classifier.classify, classifier.lanes


def status(name: str) -> float:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{name}:"))


if __name__ == "__main__":
    main()
