"""The model card, written with the figures of the run that measured the weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from feedmill.models.head import HeadConfig
from settle import NATURAL_RATE, REFERENCE_RATE

TEMPLATE = Path(__file__).resolve().parent / "model_card.md"


def write_card(path: Path, config: HeadConfig, figures: Sequence[str], **fields: str) -> None:
    """Fill the template's fields, some of them given as ``fields``, and write it to ``path``."""
    card = TEMPLATE.read_text(encoding="utf-8")
    rate = REFERENCE_RATE
    fields |= {
        "encoder": f"{config.encoder} at revision {config.encoder_revision}",
        "max_tokens": str(config.max_tokens),
        "thresholds": ", ".join(f"{label} {limit:.2f}" for label, limit in config.thresholds.items()),
        "reference_rate": f"{rate:.0%}",
        "natural_rate": f"{NATURAL_RATE:.1%}",
        "log_odds": f"{math.log((1 - rate) / rate):.2f}",
        "figures": "\n".join(figures),
    }
    for name, value in fields.items():
        card = card.replace(f"<{name}>", value)
    path.write_text(card, encoding="utf-8")
