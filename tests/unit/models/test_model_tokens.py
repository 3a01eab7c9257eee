"""Tokenizing: cutting, marking what was cut, prefixes, models without a tokenizer.json."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_models import CLS, SEP, UNK, WORDS, bert_tokenizer

from feedmill.errors import ModelError
from feedmill.models.tokens import Tokens, load_tokenizer

SPECIAL = {UNK: 1, CLS: 2, SEP: 3}


def id_of(word: str) -> int:
    return SPECIAL.get(word, 4 + WORDS.index(word) if word in WORDS else -1)


@pytest.fixture(params=["tokenizer.json", "vocab.txt"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The same tokenizer as tokenizer.json and as the older vocabulary file."""
    if request.param == "tokenizer.json":
        bert_tokenizer().save(str(tmp_path / "tokenizer.json"))
    else:
        (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", UNK, CLS, SEP, *WORDS]), encoding="utf-8")
        (tmp_path / "config.json").write_text('{"model_type": "bert"}')
        (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    return tmp_path


def test_ids_with_special_tokens_and_no_padding(folder: Path) -> None:
    one, two = load_tokenizer(folder, 16)(["hello", "you are nice"])
    assert one == Tokens([id_of(word) for word in (CLS, "hello", SEP)], truncated=False)
    assert two.cost == 5


def test_a_long_text_is_cut_and_marked(folder: Path) -> None:
    fits, cut = load_tokenizer(folder, 8)(["nice " * 6, "nice " * 7])
    assert (fits.cost, fits.truncated) == (8, False)
    assert (cut.cost, cut.truncated) == (8, True)
    assert cut.ids[-1] == id_of(SEP)


def test_a_prefix_comes_first(folder: Path) -> None:
    (tokens,) = load_tokenizer(folder, 16, prefix="hello ")(["person"])
    assert tokens.ids == [id_of(word) for word in (CLS, "hello", "person", SEP)]


def test_padding_and_truncation_saved_with_the_tokenizer_do_not_count(tmp_path: Path) -> None:
    tokenizer = bert_tokenizer()
    tokenizer.enable_padding(length=12)
    tokenizer.enable_truncation(4)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tokens,) = load_tokenizer(tmp_path, 16)(["you are a nice person"])
    assert (tokens.cost, tokens.truncated) == (7, False)


@pytest.mark.parametrize("text", ["", " ", "\x00\x1f", "🙂🙃", "\u202enice", "nice\nnice"])
def test_odd_texts(folder: Path, text: str) -> None:
    (tokens,) = load_tokenizer(folder, 16)([text])
    assert tokens.ids[0] == id_of(CLS)
    assert tokens.ids[-1] == id_of(SEP)


def test_a_tokenizer_in_python(tmp_path: Path) -> None:
    """Bytes as tokens (ByT5): no tokenizer.json, and no counterpart in the tokenizers library."""
    (tmp_path / "config.json").write_text('{"model_type": "t5"}')
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "ByT5Tokenizer"}')
    fits, cut = load_tokenizer(tmp_path, 8, prefix="é")(["hello", "good person"])
    assert fits == Tokens([*(byte + 3 for byte in "éhello".encode()), 1], truncated=False)
    assert cut == Tokens([*(byte + 3 for byte in b"\xc3\xa9good "), 1], truncated=True)


def test_no_texts(folder: Path) -> None:
    assert load_tokenizer(folder, 16)([]) == []


def test_a_broken_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match=r"tokenizer\.json: no readable tokenizer"):
        load_tokenizer(tmp_path, 16)


def test_no_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ModelError, match="no tokenizer"):
        load_tokenizer(tmp_path, 16)
