"""Encoders and classifiers from their exports, for ``FEEDMILL_BACKEND=onnx``: nothing here imports torch."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from feedmill.errors import ModelError, SettingsError
from feedmill.models.encoder import SentenceEncoder
from feedmill.models.exports.record import Export, Task, export_folder, exports_root, read_export
from feedmill.models.labels import LabelPolicy, label_policy
from feedmill.models.lanes import share_cores
from feedmill.models.normalise import normalise
from feedmill.models.resolve import space_name
from feedmill.models.scoring import ScoringClassifier
from feedmill.models.tokens import TextTokenizer, Tokens, load_tokenizer, lower_cased
from feedmill.models.uri import ModelRef
from feedmill.settings import ModelSettings

if TYPE_CHECKING:
    from feedmill.models.exports.session import Session

logger = logging.getLogger(__name__)


def open_exported_encoder(ref: ModelRef, settings: ModelSettings) -> SentenceEncoder:
    """The encoder ``ref`` from its export. Raises ModelError or SettingsError."""
    folder, export = find_export(ref, "encode", settings)
    return encoder_in(folder, export, settings)


def encoder_in(folder: Path, export: Export, settings: ModelSettings) -> SentenceEncoder:
    """The encoder in ``folder``, in the space of the model that it was exported from, if its numbers are exact."""
    files = export.files(folder)
    prefix = export.prefix if settings.text_prefix is None else settings.text_prefix
    space = space_name(files, export.outputs, "" if prefix == export.prefix else prefix)
    session = _session(folder, export, settings)
    lanes = share_cores(settings).count
    tokenize = _tokenizer(folder, export, settings, prefix, 1)
    logger.info(
        "encoder %s on ONNX Runtime: %d dimensions, %d lanes, space %s", files.label, export.outputs, lanes, space
    )
    return SentenceEncoder(export.outputs, space, files, lanes, session.batch_tokens, tokenize, session)


def open_exported_classifier(
    ref: ModelRef, settings: ModelSettings
) -> tuple[ScoringClassifier, LabelPolicy, frozenset[str]]:
    """The classifier ``ref`` from its export, what its labels mean, and its languages.

    Raises ModelError or SettingsError.
    """
    folder, export = find_export(ref, "toxic", settings)
    return classifier_in(folder, export, settings)


def classifier_in(
    folder: Path, export: Export, settings: ModelSettings
) -> tuple[ScoringClassifier, LabelPolicy, frozenset[str]]:
    """The classifier in ``folder``, with its policy and languages."""
    policy = label_policy(export.labels, export.kind, settings, export.thresholds)
    prefix = export.prefix if settings.text_prefix is None else settings.text_prefix
    session = _session(folder, export, settings)
    plain = _tokenizer(folder, export, settings, prefix, settings.max_windows)

    def tokenize(texts: Sequence[str]) -> list[Tokens]:
        return plain([normalise(text) for text in texts] if export.normalise else texts)

    lanes = share_cores(settings).count
    label = export.files(folder).label
    classifier = ScoringClassifier(export.labels, label, lanes, session.batch_tokens, tokenize, session)
    return classifier, policy, frozenset(settings.languages or export.languages)


def find_export(ref: ModelRef, task: Task, settings: ModelSettings) -> tuple[Path, Export]:
    """The export that the settings name, checked while another thread imports ONNX Runtime.

    Raises:
        ModelError: no export, another one's, or no ONNX Runtime.
        SettingsError: a device that this backend has not.
    """
    if settings.device == "cuda":
        raise SettingsError("FEEDMILL_DEVICE: cuda, and FEEDMILL_BACKEND onnx runs on the CPU; expected auto or cpu")
    folder = export_folder(exports_root(settings.onnx_dir), ref, task, settings.onnx_precision)
    with ThreadPoolExecutor(1, thread_name_prefix="import-onnxruntime") as executor:
        importing = executor.submit(importlib.import_module, "onnxruntime")
        export = read_export(folder, ref, task, settings.onnx_precision)
        try:
            importing.result()
        except ImportError as error:
            raise ModelError(f'FEEDMILL_BACKEND is onnx: {error}; pip install "feedmill-{task}[onnx]"') from error
    return folder, export


def _session(folder: Path, export: Export, settings: ModelSettings) -> Session:
    from feedmill.models.exports.session import Session

    return Session(folder, export, share_cores(settings))


def _tokenizer(folder: Path, export: Export, settings: ModelSettings, prefix: str, windows: int) -> TextTokenizer:
    tokenize = load_tokenizer(folder, min(settings.max_tokens, export.max_tokens), prefix, windows)
    return lower_cased(tokenize) if export.lower_case else tokenize
