"""Making an export: write the graph, hold it against torch, and keep it only if it holds."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files as package_files
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from feedmill.errors import ModelError
from feedmill.models.exports.graph import Graph, Smoothing, build
from feedmill.models.exports.quality import largest_difference, score_quality, vector_quality
from feedmill.models.exports.quantise import calibrate, scheme_name
from feedmill.models.exports.record import (
    FILES,
    GRAPH,
    RECORD,
    TOKENIZER,
    WEIGHTS,
    Export,
    Precision,
    Task,
    export_folder,
    file_hash,
)
from feedmill.models.exports.session import Session, open_session, pack_feeds
from feedmill.models.exports.source import Rows, Source, open_source
from feedmill.models.lanes import Lanes, usable_cores
from feedmill.models.tokens import Tokens
from feedmill.models.uri import ModelRef
from feedmill.settings import ModelSettings, read

logger = logging.getLogger(__name__)

CALIBRATION_SHARE = 3
"""Every third text calibrates a quantisation; the others measure it."""
BATCH_TEXTS = 64


@dataclass(frozen=True, slots=True)
class Limits:
    """What an export must keep: fp32 numbers within ``tolerance``; of int8, ``overlap@10`` or agreeing verdicts."""

    tolerance: float = 1e-4
    floor: float = 0.95


def own_texts() -> list[str]:
    """516 short posts and comments in English, written for Feedmill's sample feed."""
    return (package_files("feedmill.models.exports") / "texts.txt").read_text(encoding="utf-8").splitlines()


def make_export(
    task: Task, ref: ModelRef, precision: Precision, root: Path, texts: Sequence[str], limits: Limits
) -> tuple[Path, Export]:
    """Export ``ref`` to its folder below ``root``; an older export gives way. Blocking, tens of seconds.

    Raises:
        ModelError: it can't be exported, or its numbers are further from torch's than ``limits`` allow.
    """
    # The model's own limits: a worker's settings may ask for less, and another prefix, but not for more.
    source = open_source(
        task, ref, read(ModelSettings, backend="torch", device="cpu", max_tokens=8192, max_windows=1, text_prefix=None)
    )
    root.mkdir(parents=True, exist_ok=True)
    target = export_folder(root, ref, task, precision)
    with tempfile.TemporaryDirectory(dir=root, prefix=".making-") as name:
        folder = Path(name)
        smoothing = _smoothing(source, folder, texts[::CALIBRATION_SHARE]) if precision == "int8" else {}
        graph, output = build(source.bert, source.finish, smoothing)
        _write(graph, {output: source.record["outputs"]}, folder)
        shutil.copyfile(source.tokenizer, folder / TOKENIZER)
        export = Export(
            task=task,
            uri=source.files.uri,
            name=source.files.name,
            revision=source.files.revision,
            precision=precision,
            scheme=scheme_name(smoothing) if smoothing else "",
            sha256={name: file_hash(folder / name) for name in FILES},
            **source.record,
        )
        measured = _measure(source, folder, export, _measured_texts(texts, precision))
        _judge(measured, export, limits)
        export = export.model_copy(update={"measured": measured})
        (folder / RECORD).write_text(export.model_dump_json(indent=1) + "\n", encoding="utf-8")
        _put(folder, target)
    return target, export


def _measured_texts(texts: Sequence[str], precision: Precision) -> list[str]:
    """Those that did not calibrate; fp32 takes all, and some as long as the model allows."""
    if precision == "int8":
        return [text for index, text in enumerate(texts) if index % CALIBRATION_SHARE]
    return [*texts, *(" ".join(texts[:count]) for count in (3, 5, 10, 40)), "", "x"]


def _smoothing(source: Source, folder: Path, texts: Sequence[str]) -> Smoothing:
    """Calibrate: run the exact graph on texts and note the largest activation of every input of a linear layer."""
    logger.info("calibrating on %d texts", len(texts))
    graph, _ = build(source.bert, source.finish, {})
    observed = sorted(set(graph.linear_inputs.values()))
    _write(graph, dict.fromkeys(observed), folder)
    session = open_session(folder / GRAPH, usable_cores())
    largest: dict[str, NDArray[np.float64]] = {}
    for batch in _batches(source.tokenize(texts)):
        rows = sorted((text.ids for text in batch), key=len)
        feeds = pack_feeds(rows, source.record["pad_id"], source.record["first_position"])
        for name, values in zip(observed, session.run(observed, feeds), strict=True):
            found = np.abs(values).max(axis=0).astype(np.float64)
            largest[name] = np.maximum(largest[name], found) if name in largest else found
    (folder / GRAPH).unlink()
    (folder / WEIGHTS).unlink()
    return calibrate(
        list(graph.linear_inputs),
        {name: largest[inputs] for name, inputs in graph.linear_inputs.items()},
        {name: graph.weights[name] for name in graph.linear_inputs},
    )


def _write(graph: Graph, outputs: Mapping[str, int | None], folder: Path) -> None:
    """The graph, and its weights apart: mapped at the start, so that a vocabulary is not read as a whole."""
    model = graph.model(outputs)
    onnx.save_model(
        model, folder / GRAPH, save_as_external_data=True, all_tensors_to_one_file=True, location=WEIGHTS,
        size_threshold=1024,
    )  # fmt: skip


def _measure(source: Source, folder: Path, export: Export, texts: Sequence[str]) -> dict[str, float]:
    logger.info("comparing with torch on %d texts", len(texts))
    tokens = source.tokenize(texts)
    session = Session(folder, export, Lanes(1, usable_cores()))
    expected, found = _rows(source.forward, tokens), _rows(session, tokens)
    measured = {"texts": float(len(texts)), "largest difference": largest_difference(found, expected)}
    if export.precision == "fp32":
        return measured
    if source.policy is None:
        return measured | vector_quality(found, expected)
    verdicts = [
        [source.policy.is_toxic(dict(zip(export.labels, row, strict=True))) for row in rows.tolist()]
        for rows in (expected, found)
    ]
    return measured | score_quality(found, expected, *verdicts)


def _judge(measured: dict[str, float], export: Export, limits: Limits) -> None:
    difference = measured["largest difference"]
    if export.precision == "fp32":
        if not difference <= limits.tolerance:
            raise ModelError(f"export: differs from torch by up to {difference:.2g}; expected {limits.tolerance:g}")
        return
    name = "agreement" if export.task == "toxic" else next(key for key in measured if key.startswith("overlap"))
    if not measured[name] >= limits.floor:
        raise ModelError(
            f"export: {export.scheme}: {name} is {measured[name]:.4f}; expected at least {limits.floor:g} (--floor)"
        )


def _rows(forward: Callable[[Sequence[Tokens]], Rows], tokens: Sequence[Tokens]) -> Rows:
    return np.concatenate([forward(batch) for batch in _batches(tokens)])


def _batches(tokens: Sequence[Tokens]) -> list[Sequence[Tokens]]:
    return [tokens[start : start + BATCH_TEXTS] for start in range(0, len(tokens), BATCH_TEXTS)]


def _put(folder: Path, target: Path) -> None:
    """Put the finished export in its place; what was there before is moved out of the way first."""
    if target.exists():
        target.rename(folder.with_name(f"{folder.name}-old"))
    finished = folder / "export"
    finished.mkdir()
    for name in (*FILES, RECORD):
        (folder / name).rename(finished / name)
    finished.rename(target)
    shutil.rmtree(folder.with_name(f"{folder.name}-old"), ignore_errors=True)
