"""Tokenizing texts: with the model's tokenizer.json directly, else through transformers."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Encoding, Tokenizer

from feedmill.errors import ModelError

TextTokenizer = Callable[[Sequence[str]], "list[Tokens]"]
"""Texts to token ids with the model's special tokens, cut to its limit, one entry per text, in order."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """One text, ready for the model."""

    ids: list[int]
    truncated: bool
    """Whether the text was longer than the model takes (in all its windows), so that it sees the beginning only."""
    further: tuple[list[int], ...] = ()
    """The windows behind the first, each with the special tokens of its own, for a text that was cut into windows."""

    @property
    def cost(self) -> int:
        """What this text costs in the forward pass, in tokens."""
        return len(self.ids) + sum(map(len, self.further))


def lower_cased(tokenize: TextTokenizer) -> TextTokenizer:
    """For the few models that want lower case and whose tokenizer does not see to it."""
    return lambda texts: tokenize([text.lower() for text in texts])


def load_tokenizer(path: Path, max_tokens: int, prefix: str = "", max_windows: int = 1) -> TextTokenizer:
    """The tokenizer of the model in ``path``.

    ``tokenizer.json`` is read by the tokenizers library itself: three to four times quicker than the wrapper of
    transformers, with the same ids. Models without one go through ``AutoTokenizer``.

    Args:
        max_tokens: longer texts are cut to this many tokens, special tokens included.
        prefix: put before each text, and before each of its windows.
        max_windows: a longer text becomes up to this many windows, which overlap by an eighth; what is behind the last
            is cut. Tokenizers written in Python (ByT5's) know one window only.

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
        return _fast(tokenizer, max_tokens, prefix, max_windows)
    return _wrapped(path, max_tokens, prefix, max_windows)


def _fast(tokenizer: Tokenizer, max_tokens: int, prefix: str, max_windows: int) -> TextTokenizer:
    tokenizer.no_padding()  # micro-batches are padded later, each to its own longest text
    cut = _cutter(tokenizer, max_tokens, prefix) if max_windows > 1 else None
    tokenizer.enable_truncation(max_tokens)

    def ids(texts: Sequence[str]) -> list[list[int]]:
        return [encoding.ids for encoding in tokenizer.encode_batch_fast([prefix + text for text in texts])]

    def tokenize(texts: Sequence[str]) -> list[Tokens]:
        encodings = tokenizer.encode_batch_fast([prefix + text for text in texts])
        return [one(text, encoding) for text, encoding in zip(texts, encodings, strict=True)]

    def one(text: str, encoding: Encoding) -> Tokens:
        if not encoding.overflowing or cut is None:
            return Tokens(encoding.ids, bool(encoding.overflowing))
        pieces = cut(text)
        first, *further = ids(pieces[:max_windows])
        return Tokens(first, len(pieces) > max_windows, tuple(further))

    return tokenize


def _cutter(tokenizer: Tokenizer, max_tokens: int, prefix: str) -> Callable[[str], list[str]]:
    """Cuts a text into overlapping pieces, each of which fits into ``max_tokens`` together with the prefix."""
    room = max_tokens - len(tokenizer.encode(prefix, add_special_tokens=False).ids)
    if room < 8:
        raise ModelError(
            f"{max_tokens} tokens leave {room} for a text behind the prefix {prefix!r}; expected 8 or more"
        )
    own = Tokenizer.from_str(tokenizer.to_str())
    own.enable_truncation(room, stride=room // 8)

    def cut(text: str) -> list[str]:
        encoding = own.encode(text)
        pieces = []
        for part in (encoding, *encoding.overflowing):
            spans = [at for at, special in zip(part.offsets, part.special_tokens_mask, strict=True) if not special]
            pieces.append(text[spans[0][0] : spans[-1][1]] if spans else text)
        return pieces

    return cut


def _wrapped(path: Path, max_tokens: int, prefix: str, max_windows: int) -> TextTokenizer:
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
        return _fast(wrapper.backend_tokenizer, max_tokens, prefix, max_windows)

    def tokenize(texts: Sequence[str]) -> list[Tokens]:
        prefixed = [prefix + text for text in texts]
        whole: list[list[int]] = wrapper(prefixed, truncation=False)["input_ids"]
        cut: list[list[int]] = wrapper(prefixed, truncation=True, max_length=max_tokens)["input_ids"]
        return [Tokens(ids, len(ids) < len(long)) for ids, long in zip(cut, whole, strict=True)]

    return tokenize
