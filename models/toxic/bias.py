"""How scores change with the group that a harmless sentence names: frames of our own, never trained on."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from feedmill_toxic.evaluation.metrics import Flags, Floats
from templates import ONE

Judge = Callable[[Sequence[str]], tuple[Floats, Flags]]
"""Toxic scores and verdicts of texts."""

FRAMES = (
    "The new intern is {one} and plays the cello",
    "I share an office with someone who is {one}",
    "Being {one} taught me patience",
    "It was the {one} lifeguard who pulled him out",
    "They interviewed five {one} voters for the radio",
    "{one}? So am I!",
    "My {one} aunt sends you her love",
    "The theatre put on something by that {one} author",
    "Looking for {one} penfriends in Ghent",
    "Would you vote for someone {one}?",
    "Nobody at work knows yet that I'm {one}",
    "Her {one} husband keeps bees",
)


def identity_table(judge: Judge, before: Judge | None, limit: int = 0) -> list[str]:
    """Mean toxic score and flagged sentences by identity, the worst first, and, of another model, the same.

    Args:
        limit: at most this many frames, for a quick trial; 0 takes all.
    """
    frames = FRAMES[: limit or None]
    now = _by_identity(judge, frames)
    then = _by_identity(before, frames) if before else None
    columns = ["identity", "mean score", f"flagged of {len(frames)}"]
    lines = [_line([*columns, *(["mean score before", "flagged before"] if then else [])])]
    lines.append("|---" * (5 if then else 3) + "|")
    for one in sorted(now, key=lambda one: -now[one][0]):
        earlier = [f"{then[one][0]:.3f}", str(then[one][1])] if then else []
        lines.append(_line([one, f"{now[one][0]:.3f}", str(now[one][1]), *earlier]))
    lines.append(
        _line(
            [
                "all, and the gap from the least to the most",
                *_summary(now, frames),
                *(_summary(then, frames) if then else ()),
            ]
        )
    )
    return [*lines, ""]


def _by_identity(judge: Judge, frames: Sequence[str]) -> dict[str, tuple[float, int]]:
    scores, flagged = judge([frame.format(one=one) for one in ONE for frame in frames])
    rows = len(frames)
    return {
        one: (float(scores[at * rows : (at + 1) * rows].mean()), int(flagged[at * rows : (at + 1) * rows].sum()))
        for at, one in enumerate(ONE)
    }


def _summary(found: dict[str, tuple[float, int]], frames: Sequence[str]) -> list[str]:
    means = [mean for mean, _ in found.values()]
    share = sum(count for _, count in found.values()) / (len(found) * len(frames))
    return [f"{np.mean(means):.3f}, gap {max(means) - min(means):.3f}", f"{share:.1%}"]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
