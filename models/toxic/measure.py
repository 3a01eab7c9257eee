"""The model card's tables, from the evaluation sets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import numpy as np

import augment
from data import (
    EMOJI_VALIDATION,
    HATECHECK,
    HELD_OUT,
    LABELS,
    MADLIBS_VALIDATION,
    OFFICIAL_TEST,
    Check,
    read_checks,
    read_source,
)
from feedmill.errors import Reject
from feedmill.models.classifier import LoadedClassifier
from feedmill_toxic.evaluation.metrics import (
    Confusion,
    Flags,
    Floats,
    auc,
    average_precision,
    calibration_error,
    interval,
    quality,
)
from prepare import SENTENCES
from settle import as_array, natural_weights, verdicts

_DRAWS = 300
_BLOCK = 512


def scored(loaded: LoadedClassifier, texts: Sequence[str]) -> Floats:
    """Scores ``[texts, labels]`` as the worker gives them."""
    answers: list[dict[str, float]] = []
    for start in range(0, len(texts), _BLOCK):
        for answer in loaded.judge(loaded.classifier.tokenize(texts[start : start + _BLOCK])):
            if isinstance(answer, Reject):
                raise answer
            answers.append(answer)
    return as_array(answers)


def figures(loaded: LoadedClassifier, data: Path, limit: int = 0) -> list[str]:
    """All tables as lines of Markdown."""
    return [
        *_labels(loaded, data, limit),
        *_verdicts(loaded, data, limit),
        *_sentences(loaded),
        *_functionality(loaded, data, limit),
        *_disguises(loaded),
    ]


def _labels(loaded: LoadedClassifier, data: Path, limit: int) -> list[str]:
    rows = read_source(data, OFFICIAL_TEST, limit)
    if not rows:
        return []
    truth = np.array([row.targets for row in rows]) > 0.5
    scores, weights = scored(loaded, [row.text for row in rows]), natural_weights(truth.astype(np.float64))
    lines = [
        "| label | rows with it | AUC [95 %] | avg. precision | calibration error | threshold | precision | recall |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for at, label in enumerate(LABELS):
        own, true, limit_ = scores[:, at], truth[:, at], loaded.policy.thresholds[label]
        low, high = interval(lambda some, own=own, true=true: auc(own[some], true[some]), len(own), _DRAWS)  # type: ignore[misc]
        result = quality(own >= limit_, true, weights)
        lines.append(
            f"| {label} | {int(true.sum())} | {auc(own, true):.4f} [{low:.3f}, {high:.3f}]"
            f" | {average_precision(own, true):.3f} | {calibration_error(own, true, weights):.3f} | {limit_:.2f}"
            f" | {result.precision:.3f} | {result.recall:.3f} |"
        )
    low, high = interval(lambda some: _mean_auc(scores[some], truth[some]), len(scores), _DRAWS)
    return [
        *lines,
        f"| mean | {len(rows)} in all | {_mean_auc(scores, truth):.4f} [{low:.3f}, {high:.3f}] | | | | | |",
        "",
    ]


def _mean_auc(scores: Floats, truth: Flags) -> float:
    areas = [auc(scores[:, at], truth[:, at]) for at in range(len(LABELS))]
    return float(np.mean([area for area in areas if not math.isnan(area)] or [math.nan]))


def _verdicts(loaded: LoadedClassifier, data: Path, limit: int) -> list[str]:
    lines = [
        "| verdict on | texts | accuracy [95 %] | precision | recall | F1 | false positive rate |",
        "|---|---|---|---|---|---|---|",
    ]
    sources = {"held-out Jigsaw rows": HELD_OUT, "official test rows": OFFICIAL_TEST, "HateCheck": HATECHECK,
               "HatemojiBuild, validation": EMOJI_VALIDATION,
               "bias madlibs, rows not trained on": MADLIBS_VALIDATION}  # fmt: skip
    for name, source in sources.items():
        rows = read_source(data, source, limit)
        truth = np.array([row.targets[0] for row in rows]) > 0.5
        lines += _verdict(name, loaded, [row.text for row in rows], truth)
    return [*lines, ""]


def _verdict(name: str, loaded: LoadedClassifier, texts: Sequence[str], truth: Flags) -> list[str]:
    if not texts:
        return []
    answers = verdicts(scored(loaded, texts), dict(loaded.policy.thresholds))
    counts = Confusion.of(answers, truth)
    low, high = interval(lambda some: Confusion.of(answers[some], truth[some]).accuracy, len(truth), _DRAWS)
    line = (
        f"| {name} | {len(truth)} | {counts.accuracy:.3f} [{low:.3f}, {high:.3f}] | {counts.precision:.3f}"
        f" | {counts.recall:.3f} | {counts.f1:.3f} | {counts.false_positive_rate:.3f} |"
    )
    return [line]


def _sentences(loaded: LoadedClassifier) -> list[str]:
    lines = [
        "| sentences of our own, never trained on | kind | sentences | right | wrong, with their toxic score |",
        "|---|---|---|---|---|",
    ]
    for name in ("harmless", "harmful", "reported", "check"):
        checks = sorted(read_checks(SENTENCES / f"{name}.csv"), key=lambda check: check.kind)
        for kind, group in groupby(checks, key=lambda check: check.kind):
            lines.append(_kind(name, kind, list(group), loaded))
    return [*lines, ""]


def _kind(name: str, kind: str, checks: Sequence[Check], loaded: LoadedClassifier) -> str:
    scores = scored(loaded, [check.text for check in checks])
    answers = verdicts(scores, dict(loaded.policy.thresholds))
    wrong = [
        f"{_cell(check.text)} {score:.2f}"
        for check, answer, score in zip(checks, answers, scores[:, 0], strict=True)
        if check.toxic != answer
    ]
    return f"| {name} | {kind} | {len(checks)} | {len(checks) - len(wrong)} | {'; '.join(wrong[:8])} |"


def _functionality(loaded: LoadedClassifier, data: Path, limit: int) -> list[str]:
    rows = read_source(data, HATECHECK, limit)
    if not rows:
        return []
    answers = verdicts(scored(loaded, [row.text for row in rows]), dict(loaded.policy.thresholds))
    lines = ["| HateCheck's functionality | cases | hateful | accuracy |", "|---|---|---|---|"]
    for name in sorted({row.part for row in rows}):
        picked = [at for at, row in enumerate(rows) if row.part == name]
        truth = [rows[at].targets[0] > 0.5 for at in picked]
        right = float(np.mean([answers[at] == true for at, true in zip(picked, truth, strict=True)]))
        lines.append(f"| {name} | {len(picked)} | {sum(truth)} | {right:.2f} |")
    return [*lines, ""]


def _disguises(loaded: LoadedClassifier) -> list[str]:
    """Recall of the harmful, and false alarms on the harmless sentences, under each disguise."""
    import random

    plain = {"obfuscated", "emoji", "long", "caps"}
    checks = [
        check
        for name in ("harmless", "harmful")
        for check in read_checks(SENTENCES / f"{name}.csv")
        if check.kind not in plain
    ]
    truth = np.array([check.toxic for check in checks])
    lines = ["| disguise | harmful found | harmless flagged |", "|---|---|---|"]
    for disguise in (None, *augment.DISGUISES):
        chance = random.Random(1)
        texts = [disguise(check.text, chance) if disguise else check.text for check in checks]
        counts = Confusion.of(verdicts(scored(loaded, texts), dict(loaded.policy.thresholds)), truth)
        name = disguise.__name__.replace("_", " ") if disguise else "none"
        lines.append(f"| {name} | {counts.recall:.3f} | {counts.false_positive_rate:.3f} |")
    return lines


def _cell(text: str) -> str:
    line = " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
    return f"“{line if len(line) <= 70 else '…' + line[-69:]}”"
