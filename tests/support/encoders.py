"""A second encoder: random weights of BERT's architecture, saved as any model is."""

from __future__ import annotations

from pathlib import Path

# Enough words for posts that differ, and so do their vectors.
WORDS = """
garden tomato seed rain soil bread flour oven salt butter train station ticket bridge river boat sail wind guitar piano
chorus concert drum goal match team referee coach laptop screen keyboard battery cable cat dog horse vet leash museum
painting statue tour school teacher exam homework doctor flu vaccine clinic rent lease landlord kitchen
""".split()  # noqa: SIM905  the list literal would fill a screen


def random_encoder(folder: Path, dimensions: int, seed: int = 5) -> Path:
    """One layer, vectors of ``dimensions`` numbers; texts of :data:`WORDS` get vectors that differ well."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    vocabulary = {word: index for index, word in enumerate([*special, *WORDS])}
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=dimensions, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=40, pad_token_id=0, initializer_range=0.5,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder
