"""What an export is and where it lies: a folder with the graph, its weights, the tokenizer, and ``export.json``.

The record names the weights that the export was made of and the hashes of its own files, so that an export of other
weights, or a file of another export, is noticed before a message is answered with it.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from feedmill.errors import ModelError
from feedmill.models.labels import Kind
from feedmill.models.resolve import ModelFiles, read_json, resolve
from feedmill.models.uri import ModelRef

RECORD = "export.json"
GRAPH = "model.onnx"
WEIGHTS = "weights.bin"
TOKENIZER = "tokenizer.json"
FILES = (GRAPH, WEIGHTS, TOKENIZER)

Task = Literal["encode", "toxic"]
Precision = Literal["fp32", "int8"]


class Export(BaseModel):
    """export.json."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    task: Task
    uri: str = Field(description="the model that was exported, as resolved")
    name: str
    revision: str = Field(description="the hub's commit, or the hash of the model's files")
    precision: Precision
    scheme: str = Field("", pattern=r"^[a-z0-9-]{0,40}$", description="of the quantisation, with a hash of its numbers")
    sha256: dict[str, str] = Field(description="of this export's files")
    outputs: int = Field(ge=1, description="numbers for each text: dimensions, or labels")
    max_tokens: int = Field(ge=1, description="longer texts are cut")
    pad_id: int = Field(ge=0)
    first_position: int = Field(ge=0)
    prefix: str = Field("", description="put before each text")
    lower_case: bool = False
    pooling: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    kind: Kind = "multi"
    thresholds: dict[str, float] = Field(default_factory=dict)
    languages: tuple[str, ...] = ()
    normalise: bool = Field(False, description="whether texts are normalised (feedmill.models.normalise)")
    measured: dict[str, float] = Field(default_factory=dict, description="against the forward pass on torch")

    def files(self, folder: Path) -> ModelFiles:
        """The model as results and spaces name it: exact numbers are the model itself, quantised ones another."""
        return ModelFiles(folder, self.uri, self.name, self.revision, self.scheme)


def exports_root(setting: str) -> Path:
    """Where exports are kept: ``FEEDMILL_ONNX_DIR``, else the user's cache."""
    if setting:
        return Path(setting)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "feedmill" / "onnx"


def export_folder(root: Path, ref: ModelRef, task: Task, precision: Precision) -> Path:
    """One folder for each model, task and precision; the hash keeps models of the same name apart."""
    readable = re.sub(r"[^a-z0-9]+", "-", ref.name.rpartition("/")[2].lower()).strip("-")[:40] or "model"
    digest = hashlib.sha256(str(ref).encode()).hexdigest()[:8]
    return root / f"{task}-{readable}-{precision}-{digest}"


def read_export(folder: Path, ref: ModelRef, task: Task, precision: Precision) -> Export:
    """The record in ``folder``, checked against its files and against the weights, where those are here. Blocking.

    Raises:
        ModelError: no export, a damaged one, or one of other weights; says how to make it.
    """
    remedy = f"make it with: feedmill-{task} export-onnx --model {ref} --precision {precision}"
    if not (folder / RECORD).is_file():
        raise ModelError(f"model {ref}: FEEDMILL_BACKEND is onnx and there is no export {folder}; {remedy}")
    try:
        export = Export.model_validate(read_json(folder / RECORD))
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
        raise ModelError(f"{folder / RECORD}: {problems}; {remedy}") from None
    if (export.task, export.precision) != (task, precision):
        raise ModelError(
            f"{folder / RECORD}: an export for {export.task} in {export.precision}; expected {task} in {precision}"
        )
    revision = source_revision(ref)
    if revision is not None and revision != export.revision:
        raise ModelError(
            f"model {ref}: its weights are at revision {revision}, and the export {folder} was made of revision"
            f" {export.revision}; {remedy}"
        )
    check_hashes(folder, export.sha256, remedy)
    return export


def source_revision(ref: ModelRef) -> str | None:
    """The revision of the weights that are installed here; None where there are none, as in an image without torch.

    A model of the hub is at a commit by its name, so nothing has to be looked up.
    """
    if ref.scheme == "hf" or (ref.scheme == "file" and not Path(ref.name).is_dir()):
        return None
    if ref.scheme == "pkg" and importlib.util.find_spec(ref.name) is None:
        return None
    return resolve(ref).revision


def check_hashes(folder: Path, expected: Mapping[str, str], remedy: str) -> None:
    """Raises ModelError where a file of the export is missing or is not the one that was written."""
    for name in FILES:
        file = folder / name
        if not file.is_file():
            raise ModelError(f"{folder}: lacks {name}; {remedy}")
        if file_hash(file) != expected.get(name):
            raise ModelError(f"{file}: not the file that {RECORD} names: its SHA-256 differs; {remedy}")


def file_hash(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
