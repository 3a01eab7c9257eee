"""A report as Markdown, JSON and plots."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from feedmill_toxic.evaluation.measuring import Interval, Judged, LabelFigures, Report
from feedmill_toxic.evaluation.metrics import precision_recall

_SHOWN_CHARS = 160


def write_report(folder: Path, report: Report, judged: Judged) -> list[Path]:
    """Write ``report.md``, ``report.json`` and, where matplotlib is installed, the plots; returns what was written."""
    folder.mkdir(parents=True, exist_ok=True)
    plots = _plots(folder, report, judged)
    (folder / "report.md").write_text(markdown(report, plots), encoding="utf-8")
    text = json.dumps(_plain(asdict(report)), indent=2, ensure_ascii=False, allow_nan=False)
    (folder / "report.json").write_text(text + "\n", encoding="utf-8")
    return [folder / "report.md", folder / "report.json", *plots]


def markdown(report: Report, plots: Sequence[Path] = ()) -> str:
    """The report for people."""
    parts = [
        f"# {report.model} on {report.data}\n",
        "95 % bootstrap intervals in brackets.\n",
        _verdict(report),
        "## Scores\n\n`toxicity` is the highest toxic label's score (of exclusive labels, their sum).\n",
        _table(
            (
                "score",
                "rows",
                "true",
                "AUC",
                "average precision",
                "calibration error",
                "threshold (recall) at precision",
            ),
            (_label_line(label) for label in report.labels),
        ),
        "## Reliability\n\nA calibrated score is the share of rows with such a score for which it is true.\n",
        _table(
            ("score", "mean score", "share true", "rows"),
            (
                (label.name, f"{one.score:.3f}", f"{one.rate:.3f}", one.rows)
                for label in report.labels
                for one in label.reliability
            ),
        ),
        *(f"![{plot.stem}]({plot.name})\n" for plot in plots),
        _slices(report),
        _mistakes(report),
    ]
    return "\n".join(part for part in parts if part)


def _verdict(report: Report) -> str:
    counts = report.confusion
    matrix = _table(
        ("", "judged toxic", "judged clean"),
        (
            ("toxic", counts.true_positives, counts.false_negatives),
            ("clean", counts.false_positives, counts.true_negatives),
        ),
    )
    figures = _table(
        tuple(report.intervals),
        [[_with(getattr(counts, name), around) for name, around in report.intervals.items()]],
    )
    foreign = f"Rows in a language that the model was not made for, judged clean: {report.foreign}.\n\n"
    return f"## Verdicts\n\n{foreign if report.foreign else ''}{matrix}\n{figures}"


def _label_line(label: LabelFigures) -> tuple[object, ...]:
    at = "; ".join(f"{wanted}: {found[0]:.3f} ({found[2]:.2f})" for wanted, found in label.at_precision.items())
    return (
        label.name,
        label.rows,
        label.true_rows,
        _with(label.auc, label.auc_interval),
        f"{label.average_precision:.3f}",
        f"{label.calibration_error:.3f}",
        at or "none reaches it",
    )


def _slices(report: Report) -> str:
    if not report.slices:
        return ""
    lines = (
        (
            one.column,
            _shown(one.value),
            one.confusion.true_positives + one.confusion.false_negatives,
            one.confusion.true_negatives + one.confusion.false_positives,
            f"{one.confusion.accuracy:.3f}",
            f"{one.confusion.recall:.3f}",
            f"{one.confusion.false_positive_rate:.3f}",
        )
        for one in report.slices
    )
    header = ("slice", "value", "toxic", "clean", "accuracy", "recall", "false positive rate")
    return "## Slices\n\n" + _table(header, lines)


def _mistakes(report: Report) -> str:
    if not report.mistakes:
        return ""
    lines = (("toxic" if one.toxic else "clean", f"{one.toxicity:.3f}", _shown(one.text)) for one in report.mistakes)
    return "## Wrong verdicts, the most confident first\n\n" + _table(("truth", "toxicity", "text"), lines)


def _table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [list(map(str, row)) for row in (header, ["---"] * len(header), *rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _with(figure: float, around: Interval) -> str:
    return f"{figure:.3f} [{around[0]:.3f}, {around[1]:.3f}]"


def _shown(text: str) -> str:
    """A text as one table cell."""
    line = " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
    return line if len(line) <= _SHOWN_CHARS else line[: _SHOWN_CHARS - 1] + "…"


def _plain(value: Any) -> Any:
    """JSON knows no NaN: a figure that is not defined becomes null."""
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _plots(folder: Path, report: Report, judged: Judged) -> list[Path]:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return []
    paths = [folder / "reliability.png", folder / "precision_recall.png"]
    figures = [Figure(figsize=(5, 5), layout="constrained") for _ in paths]
    reliability, curves = (figure.subplots() for figure in figures)
    reliability.plot([0, 1], [0, 1], linestyle=":", color="gray")
    for label in report.labels:
        bins = label.reliability
        reliability.plot([one.score for one in bins], [one.rate for one in bins], marker=".", label=label.name)
        scores, truth = judged.by_label(label.name)
        precision, recall, _ = precision_recall(scores, truth)
        curves.plot(recall, precision, label=label.name)
    reliability.set(xlabel="mean score", ylabel="share true")
    curves.set(xlabel="recall", ylabel="precision")
    for path, figure, axes in zip(paths, figures, (reliability, curves), strict=True):
        axes.set(xlim=(0, 1), ylim=(0, 1.02), title=f"{report.model}: {path.stem}")
        axes.legend()
        figure.savefig(path, dpi=120)
    return paths
