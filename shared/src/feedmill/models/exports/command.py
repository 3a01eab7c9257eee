"""``feedmill-encode export-onnx`` and ``feedmill-toxic export-onnx``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from feedmill import logs
from feedmill.errors import FeedmillError, ModelError, SettingsError
from feedmill.lifecycle import EXIT_FAILED, EXIT_OK, EXIT_USAGE
from feedmill.models.exports.record import Task, exports_root
from feedmill.models.uri import parse
from feedmill.settings import LogSettings, ModelSettings, read

LEAST_TEXTS = 30


def export_onnx(task: Task, default_model: str, arguments: Sequence[str]) -> int:
    """Parse ``arguments``, export, print what was measured: 0 done, 1 refused, 2 wrong usage or settings."""
    parser = _parser(task)
    options = parser.parse_args(arguments)
    try:
        settings = read(ModelSettings)
        logs.configure(read(LogSettings), f"{task}-export")
        texts = _read_texts(options.texts)
        ref = parse(options.model or settings.model or default_model)
    except (SettingsError, ModelError, OSError, ValueError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)  # noqa: T201  a command's answer
        return EXIT_USAGE
    try:
        from feedmill.models.exports.making import Limits, make_export, own_texts
    except ImportError as error:
        print(f'{parser.prog}: {error}; pip install "feedmill-{task}[onnx-export]"', file=sys.stderr)  # noqa: T201
        return EXIT_FAILED
    root = options.out or exports_root(settings.onnx_dir)
    limits = Limits(options.tolerance, options.floor)
    try:
        folder, export = make_export(task, ref, options.precision, root, texts or own_texts(), limits)
    except (FeedmillError, OSError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)  # noqa: T201
        return EXIT_FAILED
    for name, value in export.measured.items():
        print(f"{name}: {value:.6g}")  # noqa: T201
    print(folder)  # noqa: T201
    return EXIT_OK


def _parser(task: Task) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"feedmill-{task} export-onnx",
        description="Export the model that FEEDMILL_MODEL names for FEEDMILL_BACKEND=onnx; measure it against torch.",
        epilog="exit status: 0 exported, 1 refused or failed, 2 wrong usage or settings",
    )
    kept = "neighbour overlap@10" if task == "encode" else "share of unchanged verdicts"
    add = parser.add_argument
    add("--model", default="", help="model URI in place of FEEDMILL_MODEL")
    add("--precision", choices=("fp32", "int8"), default="fp32", help="default: %(default)s")
    add("--out", type=Path, help="folder of the exports (default: FEEDMILL_ONNX_DIR, else the user's cache)")
    add("--texts", type=Path, help=f"texts like yours, one a line, at least {LEAST_TEXTS} (default: a sample feed)")
    add("--tolerance", type=_share, default=1e-4, help="fp32: largest difference to torch (default: %(default)s)")
    add("--floor", type=_share, default=0.95, help=f"int8: least {kept} (default: %(default)s)")
    return parser


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text}: expected a number from 0 to 1")
    return value


def _read_texts(file: Path | None) -> list[str]:
    """The lines of ``file`` that are not empty; none without a file. Raises OSError or ValueError."""
    if file is None:
        return []
    texts = [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    if len(texts) < LEAST_TEXTS:
        raise ValueError(f"--texts: {file} has {len(texts)} lines; expected at least {LEAST_TEXTS}, one text each")
    return texts
