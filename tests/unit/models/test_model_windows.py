"""Long texts in windows: how they are cut, and which window counts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import WORDS, MakeClassifier, bert_tokenizer, model_settings

from feedmill.errors import ModelError, Reject
from feedmill.models.classifier import load_classifier
from feedmill.models.labels import Kind, LabelPolicy, Scores
from feedmill.models.tokens import Tokens, load_tokenizer
from feedmill.models.windows import worst


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    bert_tokenizer().save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def texts_of(windows: Sequence[list[int]]) -> list[list[str]]:
    """The words of each window, without its special tokens."""
    return [[WORDS[number - 4] for number in ids if number >= 4] for ids in windows]


def test_every_word_is_in_a_window_and_windows_overlap(folder: Path) -> None:
    words = [WORDS[at % len(WORDS)] for at in range(60)]
    (tokens,) = load_tokenizer(folder, 18, max_windows=10)([" ".join(words)])
    windows = texts_of([tokens.ids, *tokens.further])
    assert not tokens.truncated
    assert tokens.cost == sum(len(window) + 2 for window in windows)
    joined = list(windows[0])
    for window in windows[1:]:
        assert len(window) <= 16
        assert window[:2] == joined[-2:]
        joined += window[2:]
    assert joined == words


def test_what_is_behind_the_last_window_is_marked(folder: Path) -> None:
    (tokens,) = load_tokenizer(folder, 10, max_windows=2)(["nice " * 100])
    assert len(tokens.further) == 1
    assert tokens.truncated


def test_each_window_has_the_prefix(folder: Path) -> None:
    (tokens,) = load_tokenizer(folder, 12, prefix="hello ", max_windows=5)(["stupid " * 20])
    windows = texts_of([tokens.ids, *tokens.further])
    assert len(windows) > 1
    assert all(window[0] == "hello" and set(window[1:]) == {"stupid"} for window in windows)


def test_a_prefix_that_leaves_no_room(folder: Path) -> None:
    with pytest.raises(ModelError, match="leave 5 for a text behind the prefix"):
        load_tokenizer(folder, 8, prefix="hello you nice ", max_windows=2)


def policy(kind: Kind) -> LabelPolicy:
    return LabelPolicy(("toxic", "clean"), frozenset({"toxic"}), kind, 0.5, {})


def test_of_independent_labels_each_ones_maximum_counts() -> None:
    answers: list[Scores | Reject] = [{"toxic": 0.1, "clean": 0.7}, {"toxic": 0.9, "clean": 0.2}]
    assert worst(answers, policy("multi")) == {"toxic": 0.9, "clean": 0.7}


def test_of_exclusive_labels_the_most_toxic_window_counts() -> None:
    answers: list[Scores | Reject] = [{"toxic": 0.3, "clean": 0.7}, {"toxic": 0.6, "clean": 0.4}]
    assert worst(answers, policy("single")) == {"toxic": 0.6, "clean": 0.4}


def test_a_window_without_an_answer_is_the_texts() -> None:
    reject = Reject("model_not_finite", "no")
    assert worst([{"toxic": 0.3, "clean": 0.7}, reject], policy("multi")) is reject


def test_a_long_text_scores_as_its_worst_window(make_classifier: MakeClassifier) -> None:
    loaded = load_classifier(model_settings(make_classifier(["toxic", "insult"])), "")
    texts = ["hello", "nice " * 100 + "stupid " * 30, "good person"]
    batch = loaded.classifier.tokenize(texts)
    assert len(batch[1].further) >= 3
    short, long, last = loaded.judge(batch)
    alone = loaded.classifier.classify([batch[0], batch[2]])
    assert short == pytest.approx(alone[0], abs=1e-5)
    assert last == pytest.approx(alone[1], abs=1e-5)
    windows = [scores for scores in loaded.judge(windows_of(batch[1])) if isinstance(scores, dict)]
    assert isinstance(long, dict)
    assert long["toxic"] == pytest.approx(max(scores["toxic"] for scores in windows), abs=1e-5)


def windows_of(tokens: Tokens) -> list[Tokens]:
    return [Tokens(ids, truncated=False) for ids in (tokens.ids, *tokens.further)]


SHARES = st.floats(0, 1, width=32)


@given(
    st.lists(st.tuples(SHARES, SHARES), min_size=1, max_size=6), st.integers(0, 7), st.sampled_from(["multi", "single"])
)
def test_a_text_is_as_bad_as_its_worst_window_whatever_the_order(
    rows: list[tuple[float, float]], refused: int, kind: Kind
) -> None:
    policy = LabelPolicy(("clean", "toxic"), frozenset({"toxic"}), kind, 0.5, {})
    answers: list[Scores | Reject] = [{"clean": clean, "toxic": toxic} for clean, toxic in rows]
    found = worst(answers, policy)
    assert not isinstance(found, Reject)
    assert policy.is_toxic(found) == any(
        policy.is_toxic(answer) for answer in answers if not isinstance(answer, Reject)
    )
    again = worst(answers[::-1], policy)
    assert not isinstance(again, Reject)
    assert again["toxic"] == found["toxic"]
    answers.insert(min(refused, len(answers)), Reject("model_not_finite", "no number"))
    assert isinstance(worst(answers, policy), Reject)
