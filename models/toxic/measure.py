"""The model card's tables, from the evaluation sets."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np

import augment
from bias import Judge, identity_table
from data import (
    EMOJI_VALIDATION,
    HATECHECK,
    HATECHECK_TARGETS,
    HELD_OUT,
    LABELS,
    MADLIBS_VALIDATION,
    OFFICIAL_TEST,
    Check,
    Example,
    Source,
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
    share,
)
from prepare import SENTENCES
from settle import NATURAL_RATE, REFERENCE_RATE, as_array, at_rate, verdicts, weights_at

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


@dataclass(frozen=True, slots=True)
class Set:
    """An evaluation set with its scores ``[rows, labels]``."""

    rows: Sequence[Example]
    scores: Floats

    @classmethod
    def of(cls, loaded: LoadedClassifier, data: Path, source: Source, limit: int) -> Set:
        rows = read_source(data, source, limit)
        return cls(rows, scored(loaded, [row.text for row in rows]))

    @property
    def truth(self) -> Floats:
        """``[rows, labels]``; NaN where the set does not say."""
        return np.array([row.targets for row in self.rows], dtype=np.float64).reshape(-1, len(LABELS))

    @property
    def toxic(self) -> Flags:
        return np.array([row.targets[0] > 0.5 for row in self.rows], dtype=np.bool_)


def figures(
    loaded: LoadedClassifier, raw: LoadedClassifier, data: Path, limit: int = 0, before: LoadedClassifier | None = None
) -> list[str]:
    """All tables as lines of Markdown.

    Args:
        raw: the same model without the normalising of texts, to measure what that does.
        before: a model to compare the bias towards groups with.
    """
    sets = {
        "official test rows": Set.of(loaded, data, OFFICIAL_TEST, limit),
        "HateCheck": Set.of(loaded, data, HATECHECK, limit),
        "HatemojiBuild, validation": Set.of(loaded, data, EMOJI_VALIDATION, limit),
        "bias madlibs, rows not trained on": Set.of(loaded, data, MADLIBS_VALIDATION, limit),
    }
    hate = sets["HateCheck"]
    targets = [row.part for row in read_source(data, HATECHECK_TARGETS, limit)]
    return [
        *_labels(loaded, sets["official test rows"]),
        *_rates(loaded, sets["official test rows"]),
        *_reliability(sets["official test rows"]),
        *_verdicts(loaded, sets),
        *_sentences(loaded, limit),
        *identity_table(_judge(loaded), _judge(before) if before else None, limit),
        *_functionality(loaded, hate),
        *_parts(loaded, hate, targets, "HateCheck's target"),
        *_disguises(loaded, raw, limit),
    ]


def held_out(loaded: LoadedClassifier, data: Path, limit: int = 0) -> str:
    """The verdict's precision and recall on the rows that thresholds were chosen on, in words."""
    rows = Set.of(loaded, data, HELD_OUT, limit)
    answers, truth = verdicts(rows.scores, dict(loaded.policy.thresholds)), rows.truth
    told = []
    for rate in (REFERENCE_RATE, NATURAL_RATE):
        result = quality(answers, rows.toxic, weights_at(truth, rate))
        told.append(f"precision {result.precision:.2f} and recall {result.recall:.2f} where {rate:.1%} are toxic")
    return f"{', '.join(told)} (mean AUC {_mean_auc(rows.scores, truth > 0.5):.4f})"


def _judge(loaded: LoadedClassifier) -> Judge:
    def judge(texts: Sequence[str]) -> tuple[Floats, Flags]:
        scores = scored(loaded, texts)
        return scores[:, 0], verdicts(scores, dict(loaded.policy.thresholds))

    return judge


def _labels(loaded: LoadedClassifier, test: Set) -> list[str]:
    """Each label's merits. AUC as the rows are, and weighted to the natural rate of toxic comments: the rows that have
    another label are the hard ones to tell from those that have this one, and an enriched set has too many of them."""
    scores, truth = test.scores, test.truth > 0.5
    natural, reference = (weights_at(test.truth, rate) for rate in (NATURAL_RATE, REFERENCE_RATE))
    areas = f"AUC where {NATURAL_RATE:.1%} are toxic [95 %] | AUC of the rows as they are"
    lines = [
        f"| label | rows with it | {areas} | avg. precision | calibration error | threshold | precision | recall |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for at, label in enumerate(LABELS):
        areas = _areas(scores[:, at : at + 1], truth[:, at : at + 1], natural)
        limit = loaded.policy.thresholds[label]
        lines.append(_label(label, areas, limit, scores[:, at], truth[:, at], reference))
    return [*lines, f"| mean | {len(truth)} in all | {_areas(scores, truth, natural)} | | | | | |", ""]


def _areas(scores: Floats, truth: Flags, weights: Floats) -> str:
    """Two cells: the mean AUC of the labels given, weighted with its interval, and unweighted."""
    low, high = interval(lambda some: _mean_auc(scores[some], truth[some], weights[some]), len(scores), _DRAWS)
    return f"{_mean_auc(scores, truth, weights):.4f} [{low:.3f}, {high:.3f}] | {_mean_auc(scores, truth):.4f}"


def _label(name: str, areas: str, threshold: float, scores: Floats, truth: Flags, weights: Floats) -> str:
    result = quality(scores >= threshold, truth, weights)
    return (
        f"| {name} | {int(truth.sum())} | {areas}"
        f" | {average_precision(scores, truth):.3f} | {calibration_error(scores, truth, weights):.3f}"
        f" | {threshold:.2f} | {result.precision:.3f} | {result.recall:.3f} |"
    )


def _mean_auc(scores: Floats, truth: Flags, weights: Floats | None = None) -> float:
    areas = [auc(scores[:, at], truth[:, at], weights) for at in range(scores.shape[1])]
    return float(np.mean([area for area in areas if not math.isnan(area)] or [math.nan]))


def _rates(loaded: LoadedClassifier, test: Set) -> list[str]:
    """What the verdict's precision and recall are where more or fewer of the comments are toxic."""
    truth = test.truth
    answers, toxic = verdicts(test.scores, dict(loaded.policy.thresholds)), test.toxic
    lines = [
        "| toxic comments | verdict's precision | recall | calibration error of `toxic`, taken to that rate |",
        "|---|---|---|---|",
    ]
    for rate in (NATURAL_RATE, REFERENCE_RATE, 0.5):
        weights = weights_at(truth, rate)
        result = quality(answers, toxic, weights)
        error = calibration_error(at_rate(test.scores[:, 0], rate), toxic, weights)
        lines.append(f"| {rate:.1%} | {result.precision:.3f} | {result.recall:.3f} | {error:.3f} |")
    return [*lines, ""]


def _reliability(test: Set) -> list[str]:
    """For each label the share of rows that have it, by score: a reliability diagram in figures."""
    truth = test.truth > 0.5
    weights = weights_at(truth.astype(np.float64), REFERENCE_RATE)
    lines = [
        "| rows that have the label, by its score | 0 to 0.2 | 0.2 to 0.4 | 0.4 to 0.6 | 0.6 to 0.8 | 0.8 to 1 |",
        "|---|---|---|---|---|---|",
    ]
    for at, label in enumerate(LABELS):
        places = np.minimum((test.scores[:, at] * 5).astype(int), 4)
        cells = []
        for place in range(5):
            rows = places == place
            rate = share(float((weights * truth[:, at])[rows].sum()), float(weights[rows].sum()))
            cells.append(f"{rate:.2f} ({int(rows.sum())})" if rows.any() else "")
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return [*lines, ""]


def _verdicts(loaded: LoadedClassifier, sets: Mapping[str, Set]) -> list[str]:
    lines = [
        "| verdict on | texts | accuracy [95 %] | precision | recall | F1 | false positive rate |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, one in sets.items():
        if one.rows:
            lines.append(_verdict(name, verdicts(one.scores, dict(loaded.policy.thresholds)), one.toxic))
    return [*lines, ""]


def _verdict(name: str, answers: Flags, truth: Flags) -> str:
    counts = Confusion.of(answers, truth)
    low, high = interval(lambda some: Confusion.of(answers[some], truth[some]).accuracy, len(truth), _DRAWS)
    return (
        f"| {name} | {len(truth)} | {counts.accuracy:.3f} [{low:.3f}, {high:.3f}] | {counts.precision:.3f}"
        f" | {counts.recall:.3f} | {counts.f1:.3f} | {counts.false_positive_rate:.3f} |"
    )


def _sentences(loaded: LoadedClassifier, limit: int) -> list[str]:
    lines = [
        "| sentences of our own, never trained on | kind | sentences | right | wrong, with their toxic score |",
        "|---|---|---|---|---|",
    ]
    for name in ("harmless", "harmful", "reported", "check"):
        checks = sorted(read_checks(SENTENCES / f"{name}.csv"), key=lambda check: check.kind)
        for kind, group in groupby(checks, key=lambda check: check.kind):
            lines.append(_kind(name, kind, list(group)[: limit or None], loaded))
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


def _functionality(loaded: LoadedClassifier, cases: Set) -> list[str]:
    areas = [auc(cases.scores[:, LABELS.index(label)], cases.toxic) for label in ("toxic", "identity_hate")]
    ranking = f"HateCheck: AUC {areas[0]:.3f} by the score of `toxic`, {areas[1]:.3f} by that of `identity_hate`."
    return [ranking, "", *_parts(loaded, cases, [row.part for row in cases.rows], "HateCheck's functionality")]


def _parts(loaded: LoadedClassifier, cases: Set, parts: Sequence[str], title: str) -> list[str]:
    answers, truth = verdicts(cases.scores, dict(loaded.policy.thresholds)), cases.toxic
    lines = [f"| {title} | cases | hateful | accuracy | flagged |", "|---|---|---|---|---|"]
    for name in sorted(set(parts)):
        own = np.array([part == name for part in parts])
        right = float((answers[own] == truth[own]).mean())
        counts = f"{int(own.sum())} | {int(truth[own].sum())}"
        lines.append(f"| {name or 'none'} | {counts} | {right:.2f} | {answers[own].mean():.2f} |")
    return [*lines, ""]


def _disguises(loaded: LoadedClassifier, raw: LoadedClassifier, limit: int) -> list[str]:
    """Recall of the harmful, and false alarms on the harmless sentences, under each disguise."""
    plain = {"obfuscated", "emoji", "long", "caps"}
    checks = [
        check
        for name in ("harmless", "harmful")
        for check in read_checks(SENTENCES / f"{name}.csv")[: limit or None]
        if check.kind not in plain
    ]
    truth = np.array([check.toxic for check in checks])
    lines = [
        "| disguise | harmful found | harmless flagged | without normalising: found | flagged |",
        "|---|---|---|---|---|",
    ]
    for disguise in (None, *augment.DISGUISES):
        chance = random.Random(1)
        texts = [disguise(check.text, chance) if disguise else check.text for check in checks]
        cells = []
        for model in (loaded, raw):
            counts = Confusion.of(verdicts(scored(model, texts), dict(loaded.policy.thresholds)), truth)
            cells += [f"{counts.recall:.3f}", f"{counts.false_positive_rate:.3f}"]
        name = disguise.__name__.replace("_", " ") if disguise else "none"
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def _cell(text: str) -> str:
    line = " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
    return f"“{line if len(line) <= 70 else '…' + line[-69:]}”"
