"""What a classifier's labels mean: which are toxic, and from which score on. Pure: no model is needed."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from feedmill.errors import SettingsError
from feedmill.settings import ModelSettings

logger = logging.getLogger(__name__)

Scores = dict[str, float]
"""A score between 0 and 1 for each label."""

Kind = Literal["multi", "single"]
"""``multi``: each label stands for itself (sigmoid). ``single``: exactly one label holds (softmax)."""

# Names in use on the hub, as `_key` writes them: lower case, letters and digits only.
_KNOWN_TOXIC = frozenset(
    {
        "toxic", "toxicity", "severetoxic", "severetoxicity", "obscene", "obscenity", "threat", "insult",
        "identityhate", "identityattack", "hate", "hateful", "hatespeech", "offensive", "offensivelanguage", "abusive",
        "abuse", "profanity", "sexualexplicit", "harassment", "racist", "racism", "sexist", "sexism", "vulgar"
    }
)  # fmt: skip
_KNOWN_CLEAN = frozenset(
    {
        "clean", "nontoxic", "nottoxic", "neutral", "none", "normal", "neither", "nonhate", "nothate", "nothateful",
        "nonhateful", "nonhatespeech", "nothatespeech", "nooffensive", "nonoffensive", "notoffensive", "notabusive",
        "nonabusive", "benign", "safe", "acceptable", "ok"
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class LabelPolicy:
    """Which scores make a text toxic.

    Multi-label: one toxic label at or above its threshold. Single-label: the toxic labels' probabilities share what
    the clean ones leave, so it is their sum that is held against ``threshold``; a label with a threshold of its own is
    judged alone and stays out of the sum.
    """

    labels: tuple[str, ...]
    toxic: frozenset[str]
    kind: Kind
    threshold: float
    thresholds: Mapping[str, float]
    """Thresholds of single labels, by the model's own label names."""

    def is_toxic(self, scores: Mapping[str, float]) -> bool:
        """The verdict on the scores of one text."""
        if any(scores[label] >= threshold for label, threshold in self.thresholds.items()):
            return True
        others = [scores[label] for label in self.toxic if label not in self.thresholds]
        if not others:
            return False
        return (sum(others) if self.kind == "single" else max(others)) >= self.threshold

    def rounded(self, scores: Mapping[str, float]) -> Scores:
        """Scores as results and the store hold them: 4 digits, in the model's own order of labels."""
        return {label: round(scores[label], 4) for label in self.labels}


def label_policy(
    labels: Sequence[str], kind: Kind, settings: ModelSettings, own_thresholds: Mapping[str, float] | None = None
) -> LabelPolicy:
    """Settle what ``labels`` mean, from the settings where they say it, else from known names.

    Args:
        labels: the model's label names, in its own order.
        own_thresholds: thresholds that came with the model; they give way to ``FEEDMILL_LABEL_THRESHOLDS``, and
            all of them to a ``FEEDMILL_THRESHOLD`` that was set.

    Raises:
        SettingsError: the names say nothing, or a setting names a label that the model has not.
    """
    toxic = _toxic_labels(labels, settings)
    chosen = _match_thresholds(labels, settings.label_thresholds)
    if clean := sorted(set(chosen) - toxic):
        raise SettingsError(
            f"FEEDMILL_LABEL_THRESHOLDS: {_list(clean)} not toxic; expected among {_list(sorted(toxic))}"
        )
    own = {} if "threshold" in settings.model_fields_set else own_thresholds or {}
    thresholds = {label: threshold for label, threshold in own.items() if label in toxic} | chosen
    return LabelPolicy(tuple(labels), toxic, kind, settings.threshold, thresholds)


def choose_kind(problem_type: str | None, labels: Sequence[str]) -> Kind:
    """Multi- or single-label, from the model's config; where that is silent, from the names.

    A softmax needs a label that means "none of it"; a model whose labels are all toxic must be multi-label, and so
    is one with a single label.
    """
    if problem_type == "multi_label_classification":
        return "multi"
    if problem_type == "single_label_classification" and len(labels) > 1:
        return "single"
    return "multi" if all(_key(label) in _KNOWN_TOXIC for label in labels) or len(labels) == 1 else "single"


def _toxic_labels(labels: Sequence[str], settings: ModelSettings) -> frozenset[str]:
    toxic = _match(labels, settings.toxic_labels, "FEEDMILL_TOXIC_LABELS")
    clean = _match(labels, settings.clean_labels, "FEEDMILL_CLEAN_LABELS")
    if both := toxic & clean:
        raise SettingsError(
            f"FEEDMILL_TOXIC_LABELS and FEEDMILL_CLEAN_LABELS: {_list(sorted(both))} in both; expected in one of them"
        )
    if toxic:
        return toxic
    if not clean:
        toxic = frozenset(label for label in labels if _key(label) in _KNOWN_TOXIC)
        clean = frozenset(label for label in labels if _key(label) in _KNOWN_CLEAN)
    toxic = toxic or (frozenset(labels) - clean if clean else frozenset())
    if not toxic:
        raise SettingsError(
            f"FEEDMILL_TOXIC_LABELS: the model's labels {_list(labels)} do not tell which mean toxic; expected some of"
            " them, separated by commas"
        )
    if silent := [label for label in labels if label not in toxic | clean]:
        logger.info("labels %s are reported and never make a text toxic", _list(silent))
    return toxic


def _match(labels: Sequence[str], wanted: Iterable[str], setting: str) -> frozenset[str]:
    """The model's own names for those in a setting, whatever their case and punctuation."""
    by_key = {_key(label): label for label in labels}
    if unknown := [name for name in wanted if _key(name) not in by_key]:
        raise SettingsError(f"{setting}: the model has no label {_list(unknown)}; expected some of {_list(labels)}")
    return frozenset(by_key[_key(name)] for name in wanted)


def _match_thresholds(labels: Sequence[str], thresholds: Mapping[str, float]) -> dict[str, float]:
    result: dict[str, float] = {}
    for name, threshold in thresholds.items():
        result |= dict.fromkeys(_match(labels, [name], "FEEDMILL_LABEL_THRESHOLDS"), threshold)
    return result


def _key(label: str) -> str:
    return "".join(char for char in label.casefold() if char.isalnum())


def _list(labels: Iterable[str]) -> str:
    return ", ".join(repr(label) for label in labels)
