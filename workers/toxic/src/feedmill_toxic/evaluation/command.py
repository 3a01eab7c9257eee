"""``feedmill-toxic evaluate``: the configured model on labelled comments of your own, before a rollout."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from feedmill.errors import FeedmillError
from feedmill.settings import ModelSettings, read
from feedmill_toxic import DEFAULT_MODEL

EXIT_USAGE = 2


def evaluate(arguments: Sequence[str]) -> int:
    """Measure and write the report; 0, or 2 where data or settings do not fit."""
    options = _parser().parse_args(arguments)
    try:
        written = _evaluate(options)
    except (FeedmillError, ValueError, OSError) as error:
        print(f"feedmill-toxic evaluate: {error}", file=sys.stderr)  # noqa: T201  a command's answer
        return EXIT_USAGE
    print("\n".join(map(str, written)))  # noqa: T201
    return 0


def _evaluate(options: argparse.Namespace) -> list[Path]:
    from feedmill.models.classifier import load_classifier
    from feedmill_toxic.evaluation.measuring import Wanted, judge, report
    from feedmill_toxic.evaluation.rows import Columns, read_rows
    from feedmill_toxic.evaluation.writing import write_report

    settings = read(ModelSettings, **({"model": options.model} if options.model else {}))
    columns = Columns(options.text_column, options.truth_column, tuple(options.slice))
    loaded = load_classifier(settings, DEFAULT_MODEL)
    rows = read_rows(options.data, columns, sorted(loaded.policy.toxic))
    judged = judge(loaded, rows[: options.limit or None])
    wanted = Wanted(tuple(options.precision or Wanted().precisions), options.mistakes, options.draws)
    return write_report(options.out, report(judged, loaded.model, options.data.name, wanted), judged)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="feedmill-toxic evaluate",
        description="Measure the configured model (FEEDMILL_MODEL, FEEDMILL_THRESHOLD, ...) on labelled comments.",
    )
    add = parser.add_argument
    add("--data", type=Path, required=True, help=".csv or .jsonl, also with .gz: a text and whether it is toxic")
    add("--out", type=Path, default=Path("toxicity-report"), help="folder for the report (default: %(default)s)")
    add("--model", default="", help="model URI in place of FEEDMILL_MODEL")
    add("--text-column", default="", help="default: text, content, comment_text, test_case or tweet")
    add("--truth-column", default="", help="1 or 0; default: toxic, isToxic, is_toxic, label_gold or label")
    add("--slice", action="append", default=[], metavar="COLUMN", help="figures for each value of it; repeatable")
    add("--precision", action="append", type=float, help="find the threshold for it; repeatable (0.8, 0.9, 0.95)")
    add("--limit", type=int, default=0, help="the first rows only (default: all)")
    add("--mistakes", type=int, default=20, help="wrong verdicts to show of each kind (default: %(default)s)")
    add("--draws", type=int, default=300, help="bootstrap samples for the intervals (default: %(default)s)")
    return parser
