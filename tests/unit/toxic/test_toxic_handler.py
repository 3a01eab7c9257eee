"""What the toxic worker answers: without a model call, in windows, in languages that the model was not made for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from feedmill.errors import Reject
from feedmill.models.classifier import LoadedClassifier
from feedmill.models.labels import LabelPolicy, Scores
from feedmill.models.tokens import Tokens
from feedmill.pipeline.handler import JsonObject, Message
from feedmill.store import Store, WriteReport
from feedmill_toxic.handler import ToxicHandler

WINDOW = 5
GERMAN = "Das Wetter ist heute wunderbar und wir gehen im Park spazieren, rude Leute auch"


@dataclass
class WordFinder:
    """A model in which a window scores 0.9 where it holds the word "rude"; tokens are the words' lengths."""

    labels: tuple[str, ...] = ("toxic",)
    judged: list[int] = field(default_factory=list)
    lanes: int = 1
    batch_tokens: int = 1024

    def tokenize(self, texts: Sequence[str]) -> list[Tokens]:
        return [self._windows([len(word) if word != "rude" else 0 for word in text.split()]) for text in texts]

    def _windows(self, ids: list[int]) -> Tokens:
        first, *further = [ids[at : at + WINDOW] for at in range(0, len(ids), WINDOW)] or [[]]
        return Tokens(first, len(further) > 2, tuple(further[:2]))

    def classify(self, batch: Sequence[Tokens]) -> list[Scores | Reject]:
        self.judged.append(len(batch))
        return [{"toxic": 0.9 if 0 in tokens.ids else 0.1} for tokens in batch]

    def warm_up(self) -> None: ...


class NothingStored:
    """A store for comments without ids: nothing is written."""

    async def write(self, collection: str, writes: Sequence[object]) -> Any:
        assert (collection, list(writes)) == ("comments", [])
        return WriteReport([], 0)


async def answers(model: WordFinder, *texts: str, languages: Sequence[str] = ()) -> list[JsonObject]:
    policy = LabelPolicy(("toxic",), frozenset({"toxic"}), "multi", 0.5, {})
    loaded = LoadedClassifier(model, policy, "finder@1", frozenset(languages))
    handler = ToxicHandler(loaded, cast("Store", NothingStored()), 1000, lambda _: None)
    try:
        requests = [handler.decode(Message({"content": text}, 0)) for text in texts]
        works = [work for work in await handler.prepare(requests) if not isinstance(work, Exception)]
        outputs = [scores for scores in await handler.infer(works) if not isinstance(scores, Exception)]
        results = await handler.commit(list(zip(works, outputs, strict=True)))
        return [result for result in results if not isinstance(result, Exception)]
    finally:
        handler.close()


@pytest.mark.parametrize("text", ["", "  ", "https://example.org/rude", "www.example.org  https://example.org"])
async def test_texts_without_words_are_clean_without_a_model_call(text: str) -> None:
    model = WordFinder()
    (result,) = await answers(model, text)
    assert (result["result"], result["isToxic"], result["labels"]) == ("clean", False, {})
    assert model.judged == []


async def test_order_is_kept_among_texts_without_words() -> None:
    model = WordFinder()
    results = await answers(model, "rude one", "", "a kind one", "https://example.org")
    assert [result["result"] for result in results] == ["toxic", "clean", "clean", "clean"]
    assert model.judged == [2]


async def test_a_word_in_a_later_window_counts() -> None:
    model = WordFinder()
    (result,) = await answers(model, "one two three four five six seven rude")
    assert (result["result"], result["labels"]) == ("toxic", {"toxic": 0.9})
    assert model.judged == [2]
    assert "truncated" not in result


async def test_what_no_window_reaches_is_told() -> None:
    (result,) = await answers(WordFinder(), " ".join(["word"] * 16))
    assert result["truncated"] is True


async def test_a_language_that_the_model_cannot_judge_is_told_and_scores_decide_nothing() -> None:
    german, english = await answers(WordFinder(), GERMAN, "you are so rude today my friend", languages=["en"])
    assert (german["result"], german["isToxic"], german["unsupportedLanguage"]) == ("clean", False, "de")
    assert german["labels"] == {"toxic": 0.9}
    assert english["result"] == "toxic"
    assert "unsupportedLanguage" not in english


async def test_a_model_that_names_no_languages_judges_all() -> None:
    (result,) = await answers(WordFinder(), GERMAN)
    assert result["result"] == "toxic"
    assert "unsupportedLanguage" not in result
