"""Tokenizing texts: with the model's tokenizer.json directly, else through transformers."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from feedmill.errors import ModelError

TextTokenizer = Callable[[Sequence[str]], "list[Tokens]"]
"""Texts to token ids with the model's special tokens, cut to its limit, one entry per text, in order."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """One text, ready for the model."""

    ids: list[int]
    truncated: bool
    """Whether the text was longer than the model takes, so that the model sees its beginning only."""

    @property
    def cost(self) -> int:
        """What this text costs in the forward pass, in tokens."""
        return len(self.ids)


def lower_cased(tokenize: TextTokenizer) -> TextTokenizer:
    """For the few models that want lower case and whose tokenizer does not see to it."""
    return lambda texts: tokenize([text.lower() for text in texts])


def load_tokenizer(path: Path, max_tokens: int, prefix: str = "") -> TextTokenizer:
    """The tokenizer of the model in ``path``.

    ``tokenizer.json`` is read by the tokenizers library itself: three to four times quicker than the wrapper of
    transformers, with the same ids. Models without one go through ``AutoTokenizer``.

    Args:
        max_tokens: longer texts are cut to this many tokens, special tokens included.
        prefix: put before each text.

    Raises:
        ModelError: the folder has no tokenizer that can be read.
    """
    # Tokenizing runs beside the forward pass, which has the cores: no pool of threads of its own.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if (path / "tokenizer.json").is_file():
        try:
            tokenizer = Tokenizer.from_file(str(path / "tokenizer.json"))
        # The library raises plain Exception for a file that it can't read.
        except Exception as error:
            raise ModelError(f"{path / 'tokenizer.json'}: no readable tokenizer: {error}") from error
        return _fast(tokenizer, max_tokens, prefix)
    return _wrapped(path, max_tokens, prefix)


def _fast(tokenizer: Tokenizer, max_tokens: int, prefix: str) -> TextTokenizer:
    tokenizer.no_padding()  # micro-batches are padded later, each to its own longest text
    tokenizer.enable_truncation(max_tokens)

    def tokenize(texts: Sequence[str]) -> list[Tokens]:
        encodings = tokenizer.encode_batch_fast([prefix + text for text in texts])
        return [Tokens(encoding.ids, bool(encoding.overflowing)) for encoding in encodings]

    return tokenize


def _wrapped(path: Path, max_tokens: int, prefix: str) -> TextTokenizer:
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    try:
        wrapper = AutoTokenizer.from_pretrained(str(path), local_files_only=True, trust_remote_code=False)
    # What from_pretrained raises for missing and broken files depends on the tokenizer: all of these were seen.
    except (OSError, ValueError, TypeError, KeyError, ImportError, AttributeError) as error:
        raise ModelError(f"{path}: no tokenizer that transformers can load: {error}") from error
    # transformers makes an empty tokenizer where the vocabulary is missing: every word would be unknown.
    if len(wrapper.get_vocab()) <= len(wrapper.all_special_tokens):
        raise ModelError(f"{path}: no tokenizer; expected tokenizer.json or the vocabulary files of an older model")
    if isinstance(wrapper, PreTrainedTokenizerFast):
        return _fast(wrapper.backend_tokenizer, max_tokens, prefix)

    def tokenize(texts: Sequence[str]) -> list[Tokens]:
        prefixed = [prefix + text for text in texts]
        whole: list[list[int]] = wrapper(prefixed, truncation=False)["input_ids"]
        cut: list[list[int]] = wrapper(prefixed, truncation=True, max_length=max_tokens)["input_ids"]
        return [Tokens(ids, len(ids) < len(long)) for ids, long in zip(cut, whole, strict=True)]

    return tokenize
