"""Folders with tiny models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import LABEL_WRITER_TEXTS, MakeClassifier, bert_config, bert_tokenizer, t5_model, t5_tokenizer
from transformers import BertForSequenceClassification, BertModel


@pytest.fixture
def make_classifier(tmp_path: Path) -> MakeClassifier:
    """A factory of BERT classifiers: ``make(labels, problem_type=None, **config)`` gives the folder."""

    def make(labels: Sequence[str], problem_type: str | None = None, **config: Any) -> Path:
        torch.manual_seed(3)
        names = dict(enumerate(labels))
        folder = tmp_path / "classifier"
        BertForSequenceClassification(
            bert_config(
                num_labels=len(labels),
                id2label=names,
                label2id={label: index for index, label in names.items()},
                problem_type=problem_type,
                **config,
            )
        ).save_pretrained(folder)
        bert_tokenizer().save(str(folder / "tokenizer.json"))
        return folder

    return make


@pytest.fixture(scope="session")
def encoder_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT encoder without sentence-transformers files. Not to be changed: copy it."""
    torch.manual_seed(5)
    folder = tmp_path_factory.mktemp("models") / "tiny-encoder"
    BertModel(bert_config()).save_pretrained(folder)
    bert_tokenizer().save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture(scope="session")
def label_writer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A T5 that has learnt to write the label of ``LABEL_WRITER_TEXTS``, in a folder named as ViHateT5 is."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    tokenizer, model = t5_tokenizer(), t5_model()
    tokenizer.enable_padding(pad_id=0, pad_token="<pad>")
    inputs = tokenizer.encode_batch([f"hate-speech-detection: {text}" for text in LABEL_WRITER_TEXTS])
    ids = torch.tensor([encoding.ids for encoding in inputs])
    mask = torch.tensor([encoding.attention_mask for encoding in inputs])
    labels = torch.tensor([encoding.ids for encoding in tokenizer.encode_batch(list(LABEL_WRITER_TEXTS.values()))])
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(60):
        optimiser.zero_grad()
        model(input_ids=ids, attention_mask=mask, labels=labels).loss.backward()
        optimiser.step()
    torch.set_num_threads(threads)
    folder = tmp_path_factory.mktemp("models") / "ViHateT5-tiny"
    model.save_pretrained(folder)
    tokenizer.no_padding()
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder
