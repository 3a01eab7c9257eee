"""Runs inside the images of toxic and encode: what was cut from torch and transformers is not missed.

Small models of the families that people classify and embed with, with random weights: made, saved as safetensors, read
back, run; then the parts of torch that such models may reach.
"""

import importlib
import tempfile

import torch
from transformers import CONFIG_MAPPING, AutoModel, AutoModelForSeq2SeqLM, AutoModelForSequenceClassification

SMALL = {
    "vocab_size": 64,
    "hidden_size": 32,
    "dim": 32,
    "d_model": 32,
    "num_hidden_layers": 2,
    "n_layers": 2,
    "num_layers": 2,
    "num_attention_heads": 2,
    "n_heads": 2,
    "num_heads": 2,
    "intermediate_size": 64,
    "hidden_dim": 64,
    "d_ff": 64,
    "d_kv": 16,
    "embedding_size": 32,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
ENCODERS = ("bert", "distilbert", "roberta", "xlm-roberta", "mpnet", "albert", "electra", "deberta-v2", "modernbert")
SEQ2SEQ = ("t5", "mt5")
MODULES = (
    "torch.distributed",
    "torch.distributions",
    "torch.export",
    "torch.fft",
    "torch.fx",
    "torch.linalg",
    "torch.multiprocessing",
    "torch.nn.utils.parametrizations",
    "torch.onnx",
    "torch.optim",
    "torch.profiler",
    "torch.sparse",
    "torch.testing",
    "torch.utils.data",
    "torch._dynamo",
    "torch._inductor",
    "numpy.testing",
    "numpy.polynomial",
    "sympy",
    "networkx",
)


def small(family):
    """A small configuration; a family takes of the sizes those that it knows."""
    known = CONFIG_MAPPING[family]()
    sizes = {name: value for name, value in SMALL.items() if hasattr(known, name)}
    for name in ("eos_token_id", "bos_token_id", "cls_token_id", "sep_token_id"):
        if getattr(known, name, None) is not None:
            sizes[name] = 1
    if family in SEQ2SEQ:
        sizes["decoder_start_token_id"] = 0
    return CONFIG_MAPPING[family](**sizes)


def there_and_back(model, auto):
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        return auto.from_pretrained(folder, use_safetensors=True, local_files_only=True).eval()


def forward(family, auto):
    model = there_and_back(auto.from_config(small(family)), auto)
    ids = torch.randint(2, 60, (3, 17))
    with torch.inference_mode():
        more = {"decoder_input_ids": torch.zeros(3, 1, dtype=torch.int64)} if family in SEQ2SEQ else {}
        first = model(input_ids=ids, attention_mask=torch.ones_like(ids), **more)[0]
    assert torch.isfinite(first).all(), family
    print(family, auto.__name__, tuple(first.shape))


def kernels():
    """Operators with code of their own in libtorch: matrix products, attention, convolution, FFT, decompositions."""
    generator = torch.Generator().manual_seed(1)
    a = torch.rand(64, 64, generator=generator)
    torch.testing.assert_close(torch.linalg.inv(a) @ a, torch.eye(64), rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(torch.fft.ifft(torch.fft.fft(a)).real, a)
    attention = torch.nn.functional.scaled_dot_product_attention
    query = torch.rand(1, 2, 9, 8)
    assert attention(query, query, query).shape == query.shape
    assert torch.nn.functional.conv1d(torch.rand(1, 4, 9), torch.rand(2, 4, 3)).shape == (1, 2, 7)
    for dtype in (torch.bfloat16, torch.float16, torch.float64):
        assert (a.to(dtype) @ a.to(dtype)).dtype == dtype
    quantized = torch.ao.quantization.quantize_dynamic(torch.nn.Sequential(torch.nn.Linear(8, 8)), {torch.nn.Linear})
    assert quantized(torch.rand(2, 8)).shape == (2, 8)
    weight = torch.rand(4, 4, requires_grad=True)
    weight.sin().sum().backward()
    torch.testing.assert_close(weight.grad, weight.detach().cos())


for name in MODULES:
    importlib.import_module(name)
for family in ENCODERS:
    forward(family, AutoModel)
    forward(family, AutoModelForSequenceClassification)
for family in SEQ2SEQ:
    forward(family, AutoModelForSeq2SeqLM)
kernels()
print("all exercises passed")
