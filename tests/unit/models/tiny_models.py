"""Tiny models made on the spot: real architectures, random weights, saved as any model is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, T5Config, T5ForConditionalGeneration

from feedmill.settings import ModelSettings

PAD, UNK, CLS, SEP = "[PAD]", "[UNK]", "[CLS]", "[SEP]"
WORDS = "you are a stupid nice bad good person hello warm up the post about gardens and trains".split()  # noqa: SIM905

MakeClassifier = Callable[..., Path]
"""The fixture ``make_classifier``: ``make(labels, problem_type=None, **config)`` gives the folder."""


def model_settings(folder: Path | str = "", **changes: Any) -> ModelSettings:
    """Settings for a model in ``folder``; one thread, so that tests do not fight for the cores."""
    uri = f"file://{folder}" if isinstance(folder, Path) else folder
    return ModelSettings(model=uri, threads=1, device="cpu", **changes)


def bert_tokenizer(words: Sequence[str] = WORDS) -> Tokenizer:
    vocabulary = {word: index for index, word in enumerate([PAD, UNK, CLS, SEP, *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNK))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{CLS} $A {SEP}", special_tokens=[(CLS, 2), (SEP, 3)]
    )
    return tokenizer


def bert_config(**changes: Any) -> BertConfig:
    sizes: dict[str, Any] = {
        "vocab_size": 4 + len(WORDS),
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": 40,
        "pad_token_id": 0,
        "initializer_range": 0.5,  # far from zero: texts must differ, so that mixed-up rows are noticed
    }
    return BertConfig(**sizes | changes)


LABEL_WRITER_TEXTS = {
    "stupid person": "HATE",
    "you are bad": "OFFENSIVE",
    "hello": "CLEAN",
    "good person": "CLEAN",
    "you are nice": "CLEAN",
}


def t5_tokenizer() -> Tokenizer:
    labels = ["hate", "speech", "detection", ":", "-", "CLEAN", "OFFENSIVE", "HATE", "SPEECH"]
    words = ["<pad>", "</s>", "<unk>", *WORDS, *labels]
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return tokenizer


def t5_model() -> T5ForConditionalGeneration:
    torch.manual_seed(11)
    sizes = {"d_model": 32, "d_ff": 64, "d_kv": 8, "num_layers": 1, "num_heads": 4, "dropout_rate": 0.0}
    vocabulary = t5_tokenizer().get_vocab_size()
    return T5ForConditionalGeneration(
        T5Config(vocab_size=vocabulary, decoder_start_token_id=0, pad_token_id=0, eos_token_id=1, **sizes)
    )
