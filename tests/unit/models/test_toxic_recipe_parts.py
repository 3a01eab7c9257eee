"""The parts of the default toxicity model's recipe that can be told right from wrong without training."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.append(str(Path(__file__).resolve().parents[3] / "models" / "toxic"))

from augment import naming
from blend import mean
from data import CLEAN, LABELS, Example, known, read_checks, read_sentences
from feedmill.models.tokens import Tokens
from lora import LoraLinear
from prepare import CHECKS, SENTENCES, Closeness, tempered, training_rows
from settle import REFERENCE_RATE, at_rate, calibrate, thresholds, weights_at
from templates import sentences
from training import Rows, _share


def test_weights_and_scores_at_a_rate() -> None:
    truth = np.zeros((10, len(LABELS)))
    truth[:4, 0] = 1
    weights = weights_at(truth, 0.25)
    assert weights[:4].sum() / weights.sum() == pytest.approx(0.25)
    scores = np.array([0.1, 0.5, 0.9])
    assert at_rate(scores, REFERENCE_RATE) == pytest.approx(scores)
    assert at_rate(np.array([REFERENCE_RATE]), 0.1) == pytest.approx([0.1])


def test_calibration_takes_out_what_is_too_sure_and_thresholds_stay_near_a_half() -> None:
    generator = np.random.default_rng(1)
    shares = generator.uniform(0.02, 0.98, 4000)
    truth = np.zeros((4000, len(LABELS)))
    truth[:, 0] = generator.uniform(size=4000) < shares
    scores = np.full((4000, len(LABELS)), 0.01)
    scores[:, 0] = 1 / (1 + np.exp(-3 * np.log(shares / (1 - shares))))
    calibration = calibrate(scores, truth)
    assert calibration.slope[0] == pytest.approx(1 / 3, abs=0.05)
    assert (calibration.slope[1], calibration.shift[1]) == (1, 0)
    limits = thresholds(calibration(scores), truth)
    assert 0.4 <= limits["toxic"] <= 0.6
    assert all(limits[label] >= 0.5 for label in LABELS[1:])


def test_the_learning_rate_warms_up_and_falls() -> None:
    rates = [_share(step, 100, 0.06) for step in range(1, 101)]
    assert (max(rates), rates[5], rates[99]) == (1, 1, 0)
    assert rates == [*sorted(rates[:6]), *sorted(rates[6:], reverse=True)]


def test_a_long_text_is_trained_on_by_its_worst_window_for_each_label() -> None:
    class Network(torch.nn.Module):
        """A text's logits are its first token, and that token's negative for the other labels."""

        def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            first = ids[:, :1].float()
            return torch.cat([first, *[-first] * (len(LABELS) - 1)], dim=1)

    def loss(*texts: Tokens) -> float:
        rows = Rows.of(texts, [Example("", known(toxic=1.0, threat=0.0))] * len(texts))
        return float(rows.losses(Network(), range(len(texts))))  # type: ignore[arg-type]

    def cost(toxic: float, threat: float) -> float:
        return float(np.log1p(np.exp(-toxic)) + np.log1p(np.exp(threat)))

    long = Tokens([1, 9, 9], False, ([4], [2, 9]))
    assert loss(long) == pytest.approx(cost(4, -1))
    assert loss(long, Tokens([3], False)) == pytest.approx(cost(4, -1) + cost(3, -3))


def test_the_mean_of_two_models_is_the_mean_of_what_they_add() -> None:
    generator = torch.Generator().manual_seed(1)

    def model() -> dict[str, torch.Tensor]:
        shapes = {"adapter.layer.a": (2, 6), "adapter.layer.b": (5, 2), "output.weight": (3, 6), "output.bias": (3,)}
        return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}

    one, other = model(), model()
    products = [each["adapter.layer.b"] @ each["adapter.layer.a"] for each in (one, other)]
    blended = mean([one, other], 4)
    found = blended["adapter.layer.b"] @ blended["adapter.layer.a"]
    assert torch.allclose(found, (products[0] + products[1]) / 2, atol=1e-5)
    assert torch.allclose(blended["output.bias"], (one["output.bias"] + other["output.bias"]) / 2)
    assert list(mean([one], 2)) == list(one)
    assert mean([one, other], 3)["adapter.layer.a"].shape == (3, 6)


def test_an_adapted_layer_is_the_layer_until_its_second_factor_learns() -> None:
    layer = LoraLinear(torch.nn.Linear(6, 4), 2, 2.0)
    inputs = torch.randn(3, 5, 6)
    assert torch.equal(layer(inputs), layer.base(inputs))
    torch.nn.init.ones_(layer.b)
    expected = layer.base(inputs) + 2.0 * inputs @ layer.a.T @ layer.b.T
    assert torch.allclose(layer(inputs), expected, atol=1e-5)


def test_own_sentences_have_both_kinds_and_no_gaps() -> None:
    own = sentences(3)
    assert not [example.text for example in own if "{" in example.text or "}" in example.text]
    toxic = sum(example.targets[0] == 1.0 for example in own)
    assert 0.3 < toxic / len(own) < 0.6
    assert {example.targets[0] for example in own} == {0.0, 1.0}


def test_what_is_measured_on_is_not_trained_on_nor_is_anything_close_to_it(tmp_path: Path) -> None:
    sets = {check.text for name in CHECKS for check in read_checks(SENTENCES / f"{name}.csv")}
    with (tmp_path / "jigsaw_train_6label.csv").open("w", newline="", encoding="utf-8") as stream:
        rows = [*sets, "A comment that nobody measures on"]
        csv.writer(stream).writerows([["comment_text", *LABELS], *([row, *"000000"] for row in rows)])
    trained = training_rows(tmp_path)
    assert any(example.text == "A comment that nobody measures on" for example in trained)
    assert not sets & {example.text for example in trained}
    own = {example.text for example in (*read_sentences(SENTENCES / "train.csv"), *sentences(7), *sentences(8))}
    closeness = Closeness(sets)
    assert max(closeness(example.text) for example in trained if example.text in own) < 0.6
    assert closeness("Is your brother gay as well?") < 0.6 <= closeness("I AM gay!")


def test_nor_is_it_by_a_model_of_jigsaw_alone(tmp_path: Path) -> None:
    for name, texts in (("train", ["You measure this!", "Nobody does"]), ("heldout", ["you measure THIS"])):
        with (tmp_path / f"jigsaw_{name}_6label.csv").open("w", newline="", encoding="utf-8") as stream:
            csv.writer(stream).writerows([["comment_text", *LABELS], *([text, *"100000"] for text in texts)])
    assert [example.text for example in training_rows(tmp_path, bare=True)] == ["Nobody does"]


def test_a_model_of_jigsaw_alone_needs_jigsaw(tmp_path: Path) -> None:
    with (tmp_path / "davidson_tweets.csv").open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([["tweet", "class"], ["see you at nine", "2"]])
    assert training_rows(tmp_path)
    with pytest.raises(ValueError, match=r"expected some of jigsaw_train_6label\.csv\.gz$"):
        training_rows(tmp_path, bare=True)


def test_open_labels() -> None:
    hateful = next(row for row in read_sentences(SENTENCES / "templates.csv") if "breed" in row.text)
    assert (hateful.targets[0], hateful.targets[5]) == (1.0, 1.0)
    assert np.isnan(hateful.targets[4])


def test_what_swears_at_nobody_is_neither_clean_nor_toxic() -> None:
    swears = tempered(Example("fuck yeah, we made it", CLEAN))
    assert 0 < swears.targets[0] < 0.5
    assert np.isnan(swears.targets[LABELS.index("obscene")])
    assert swears.targets[LABELS.index("threat")] == 0
    for text, targets in (("The class assumed hello", CLEAN), ("you fucking idiot", known(toxic=1.0))):
        example = Example(text, targets)
        assert tempered(example) is example


def test_a_group_named_in_a_comment_does_not_make_it_toxic() -> None:
    clean, toxic = Example("The editor left", CLEAN), Example("Editors are idiots", known(toxic=1.0, identity_hate=0.0))
    named = naming([clean, Example("No one here", CLEAN), toxic], ["Jewish"], 2)
    assert {example.text for example in named} == {"The Jewish editor left", "Jewish Editors are idiots"}
    by_text = {example.text: example.targets for example in named}
    assert by_text["The Jewish editor left"] == CLEAN
    assert by_text["Jewish Editors are idiots"][0] == 1.0
    assert np.isnan(by_text["Jewish Editors are idiots"][LABELS.index("identity_hate")])
