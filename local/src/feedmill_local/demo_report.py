"""Showing what came of the sample feed, so that a person sees at a glance that it works."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from feedmill_local.client import Answer
from feedmill_local.demo import TOP_K, Outcome
from feedmill_local.terminal import printable, show_table

TOXIC_SHOWN = 6
DOUBTFUL_SHOWN = 5
"""Clean comments with the highest scores: those that a bad model would get wrong."""
CLEAN_SHOWN = 2
POSTS_SHOWN = 4
TEXT_CHARS = 70
TITLE_CHARS = 48
BAR_CHARS = 24


@dataclass(frozen=True, slots=True)
class Figures:
    """How fast a worker answered. ``seconds`` are publish-to-result latencies, rising; rate in messages a second."""

    seconds: list[float]
    rate: float

    def percentile(self, share: float) -> float:
        """By nearest rank: the smallest latency that ``share`` of all do not exceed."""
        return self.seconds[max(0, math.ceil(share * len(self.seconds)) - 1)]


def figures(answers: Sequence[Answer]) -> Figures:
    """The figures of at least one answer."""
    lasted = max(answer.received for answer in answers) - min(answer.sent for answer in answers)
    return Figures(sorted(answer.seconds for answer in answers), len(answers) / max(lasted, 1e-9))


def show(console: Console, outcome: Outcome) -> None:
    """The verdicts, some similar posts, and how fast each worker was."""
    if outcome.answers["toxic"]:
        _show_verdicts(console, [answer.json() for answer in outcome.answers["toxic"]])
    if outcome.answers["hint"]:
        _show_neighbours(console, outcome)
    _show_speed(console, outcome.answers)


@contextmanager
def progress(console: Console, totals: Mapping[str, int]) -> Iterator[Any]:
    """What to call with each answer: on a terminal, that moves a bar for each worker."""
    if not console.is_terminal:
        yield lambda _: None
        return
    columns = (TextColumn("{task.description:<8}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bars:
        tasks = {worker: bars.add_task(worker, total=total) for worker, total in totals.items()}
        yield lambda answer: bars.advance(tasks[answer.request.route.worker])


def _show_verdicts(console: Console, results: Sequence[Mapping[str, Any]]) -> None:
    toxic = sorted((result for result in results if result["isToxic"]), key=_strongest, reverse=True)
    clean = sorted((result for result in results if not result["isToxic"]), key=_toxicity, reverse=True)
    doubtful, rest = clean[:DOUBTFUL_SHOWN], clean[DOUBTFUL_SHOWN:]
    shown = [*_spread(toxic[: max(TOXIC_SHOWN, len(toxic) // 2)], TOXIC_SHOWN), *doubtful, *_spread(rest, CLEAN_SHOWN)]
    rows = [
        (
            str(result["result"]),
            f"{_strongest(result)[0]:.3f}",
            _strongest(result)[1],
            _text(result["text"], TEXT_CHARS),
        )
        for result in shown
    ]
    title = f"Comments: {len(toxic)} toxic, {len(clean)} clean (model {_text(results[0]['model'], TITLE_CHARS)}); some:"
    _blank()
    show_table(console, title, ("verdict", "score>", "label", "comment"), rows)


def _show_neighbours(console: Console, outcome: Outcome) -> None:
    titles = {post["_id"]: post["title"] for post in outcome.feed.posts}
    results = [answer.json() for answer in outcome.answers["hint"]]
    rows: list[tuple[str, str, str]] = []
    met: set[str] = set()
    for result in sorted(results, key=_farthest, reverse=True):
        ids = {result["id"], *(found["post"]["_id"] for found in result["homologous_posts"])}
        if met.isdisjoint(ids):  # else much the same posts again, the other way round
            rows += _neighbour_rows(titles.get(result["id"], result["id"]), result["homologous_posts"])
            met |= ids
        if len(rows) >= POSTS_SHOWN * TOP_K:
            break
    _blank()
    title = f"Similar posts: asked for {len(results)} posts, some:"
    show_table(console, title, ("post", "cosine>", "nearest posts"), rows)


def _neighbour_rows(title: str, found: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, str]]:
    return [
        (
            _text(title, TITLE_CHARS) if place == 0 else "",
            f"{entry['score']:.3f}",
            _text(str(entry["post"].get("title", entry["post"]["_id"])), TITLE_CHARS),
        )
        for place, entry in enumerate(found)
    ]


def _show_speed(console: Console, answers: Mapping[str, Sequence[Answer]]) -> None:
    found = {worker: figures(entries) for worker, entries in answers.items() if entries}
    fastest = max((entry.rate for entry in found.values()), default=1.0)
    rows = [
        (
            worker,
            str(len(entry.seconds)),
            f"{entry.rate:.0f}",
            *(f"{entry.percentile(share) * 1000:.0f}" for share in (0.50, 0.95, 0.99)),
            _bar(console, entry.rate / fastest),
        )
        for worker, entry in found.items()
    ]
    title = (
        "Answers, and milliseconds from publishing to the result (all were sent at once: with the wait in the queue)"
    )
    _blank()
    show_table(console, title, ("worker", "answers>", "per second>", "p50>", "p95>", "p99>", ""), rows)


def _bar(console: Console, share: float) -> str:
    block = "█" if (console.encoding or "").lower().startswith("utf") else "#"
    return block * max(1, round(share * BAR_CHARS))


def _strongest(result: Mapping[str, Any]) -> tuple[float, str]:
    """The label with the highest score, and that score."""
    return max((float(score), str(label)) for label, score in result["labels"].items())


def _toxicity(result: Mapping[str, Any]) -> float:
    """How near a clean comment came to being toxic, as far as the model has such a label."""
    return float(result["labels"].get("toxic", 0.0))


def _farthest(result: Mapping[str, Any]) -> float:
    """How near the farthest of the neighbours is: where it is near, all are."""
    return min((float(found["score"]) for found in result["homologous_posts"]), default=0.0)


def _spread(results: Sequence[Mapping[str, Any]], number: int) -> list[Mapping[str, Any]]:
    """``number`` of the results, evenly from the first to the last."""
    if len(results) <= number:
        return list(results)
    return [results[round(place * (len(results) - 1) / (number - 1))] for place in range(number)]


def _text(text: str, limit: int) -> str:
    return printable(" ".join(text.split()), limit)


def _blank() -> None:
    click.echo()
