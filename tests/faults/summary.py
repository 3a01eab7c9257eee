"""One table over a whole run: each test's verdict, as JSON and as Markdown."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from faults.verdict import Verdict
from support.ci import queue_type

HEAD = (
    "| run | accepted | results | dead letters | duplicates | lost | wrong effects | slowest heal | violations "
    "| took |\n"
    "|---|---|---|---|---|---|---|---|---|---|\n"
)


@dataclass
class Row:
    """One test. ``verdict`` is None where it did not come to its accounting; ``error`` says why."""

    name: str
    passed: bool
    seconds: float
    verdict: Verdict | None = None
    error: str = ""

    def line(self) -> str:
        if self.verdict is None:
            outcome = "passed" if self.passed else f"no accounting: {self.error}"
        else:
            outcome = self.verdict.line()
        return f"{self.name}: {outcome}"

    def markdown(self) -> str:
        told = self.verdict
        if told is None:
            return f"| `{self.name}` | no accounting: {self.error} {'| ' * 8}{self.seconds:.0f} s |\n"
        slowest = max(told.heal_seconds.values(), default=0.0)
        return (
            f"| `{self.name}` | {told.accepted} | {told.results} | {told.dead} | {told.duplicates} | {told.lost} | "
            f"{told.wrong_effects} | {slowest:.1f} s | {len(told.violations)} | {self.seconds:.0f} s |\n"
        )


@dataclass
class Summary:
    seed: int
    run: int
    """Which of several in a row."""
    queues: str = field(default_factory=queue_type)
    cores: int = field(default_factory=lambda: os.cpu_count() or 1)
    load_before: tuple[float, float, float] = field(default_factory=os.getloadavg)
    load_after: tuple[float, float, float] = (0.0, 0.0, 0.0)
    began: float = field(default_factory=time.time)
    seconds: float = 0.0
    rows: list[Row] = field(default_factory=list)

    @property
    def total(self) -> str:
        judged = [row.verdict for row in self.rows if row.verdict is not None]
        return (
            f"Run {self.run}, seed {self.seed}, {self.queues} queues: {len(self.rows)} tests, "
            f"{sum(not row.passed for row in self.rows)} failed, {sum(v.accepted for v in judged)} accepted, "
            f"{sum(v.lost for v in judged)} lost, {sum(v.wrong_effects for v in judged)} wrong effects, "
            f"{sum(v.duplicates for v in judged)} duplicates, {sum(len(v.violations) for v in judged)} violations, "
            f"{self.seconds / 60:.1f} min; load {self.load_before[0]:.1f} before and {self.load_after[0]:.1f} after, "
            f"{self.cores} cores."
        )

    def markdown(self) -> str:
        return f"{self.total}\n\n{HEAD}{''.join(row.markdown() for row in self.rows)}"

    def save(self, folder: Path) -> Path:
        """Write summary-RUN.json and .md; answer the latter."""
        self.seconds, self.load_after = time.time() - self.began, os.getloadavg()
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"summary-{self.run}.md"
        path.with_suffix(".json").write_text(json.dumps(asdict(self), indent=1), encoding="utf-8")
        path.write_text(self.markdown(), encoding="utf-8")
        return path
