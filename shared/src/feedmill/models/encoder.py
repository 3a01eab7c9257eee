"""Sentence encoders: texts to vectors. No torch until one is loaded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from feedmill.errors import ModelError
from feedmill.models.resolve import ModelFiles, resolve
from feedmill.models.tokens import TextTokenizer, Tokens
from feedmill.models.uri import parse
from feedmill.settings import ModelSettings

Forward = Callable[[Sequence[Tokens]], NDArray[np.float32]]
"""One or more texts (their first windows) to rows of numbers, in order. Blocking; several threads may call it."""


@dataclass(frozen=True, slots=True)
class SentenceEncoder:
    """A loaded encoder. Blocking; one thread may tokenize while ``lanes`` others encode."""

    dimensions: int
    space: str
    """The embedding space's name: ``[a-z0-9-]{1,60}``, other for each model and revision."""
    files: ModelFiles
    lanes: int
    batch_tokens: int
    """Tokens of one batch at most, for the best of throughput and waiting."""
    _tokenize: TextTokenizer
    _forward: Forward

    @property
    def model(self) -> str:
        """The model's name and short revision, for results."""
        return self.files.label

    @property
    def uri(self) -> str:
        return self.files.uri

    @property
    def revision(self) -> str:
        """The hub's commit, or the hash of the model's files; and how it is quantised, if it is."""
        return self.files.revision + (f"+{self.files.variant}" if self.files.variant else "")

    def tokenize(self, texts: Sequence[str]) -> list[Tokens]:
        """Token ids, cut to the model's limit; one entry per text, in order."""
        return self._tokenize(texts)

    def encode(self, batch: Sequence[Tokens]) -> NDArray[np.float32]:
        """Vectors ``[texts, dimensions]`` in the batch's order.

        Raises:
            ModelError: a vector with values that are not finite, which would poison every search it is part of.
        """
        if not batch:
            return np.empty((0, self.dimensions), dtype=np.float32)
        vectors = self._forward(batch)
        if not np.isfinite(vectors).all():
            raise ModelError(f"{self.model}: gave a vector with values that are not finite")
        return vectors

    def warm_up(self) -> None:
        """One small forward pass: the first one is slow, and fails here rather than on a message."""
        self.encode(self.tokenize(["warm up"]))


def load_encoder(settings: ModelSettings, default_uri: str) -> SentenceEncoder:
    """Load the encoder that the settings name, or ``default_uri``. Blocking, seconds.

    Raises:
        ModelError: not found, refused, not a sentence encoder, or not exported (``FEEDMILL_BACKEND=onnx``).
        SettingsError: a device that is not there.
    """
    ref = parse(settings.model or default_uri)
    if settings.backend == "onnx":
        from feedmill.models.exports.opening import open_exported_encoder

        return open_exported_encoder(ref, settings)
    from feedmill.models.starting import import_torch_beside

    files = import_torch_beside(lambda: resolve(ref, settings.model_cache))
    from feedmill.models.torch_encoder import open_encoder

    return open_encoder(files, settings)
