"""The time of a query against the number of vectors, on log axes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

SERIES = {
    "alone_ms": ("feedmill's index, one query alone (p50)", "o-"),
    "numpy_alone_ms": ("numpy, exact (p50)", "s--"),
    "first_system_cosine_ms": ("the first system's cosines, without its fetch (p50)", "^:"),
}


def draw(results: dict[str, Any], file: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    points = sorted((entry["vectors"], entry) for name, entry in results.items() if name.startswith("clustered"))
    figure, axes = plt.subplots(figsize=(7, 4.5))
    for key, (label, style) in SERIES.items():
        known = [(vectors, entry[key]["p50"]) for vectors, entry in points if key in entry]
        axes.plot([vectors for vectors, _ in known], [value for _, value in known], style, label=label)
    axes.set(xscale="log", yscale="log", xlabel="vectors of 384 dimensions", ylabel="ms a query")
    axes.grid(visible=True, which="both", alpha=0.3)
    axes.legend()
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.tight_layout()
    figure.savefig(file, dpi=120)
