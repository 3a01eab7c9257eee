"""What the toxic worker does with comments."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from feedmill.contract import TOXIC
from feedmill.errors import MessageError
from feedmill.ids import PostId, id_text, parse_id
from feedmill.lane import Lane
from feedmill.pipeline.handler import JsonObject, Message
from feedmill.store import Store, Write
from feedmill.wire import text_field
from feedmill_toxic.language import has_words, unsupported

if TYPE_CHECKING:  # torch takes seconds to import: not before the probes answer and the settings are checked
    from feedmill.models.classifier import LoadedClassifier
    from feedmill.models.labels import Scores
    from feedmill.models.tokens import Tokens


@dataclass(frozen=True, slots=True)
class Comment:
    """A comment to judge. Without an id nothing is stored, the result is still published."""

    id: PostId | None
    text: str


@dataclass(frozen=True, slots=True)
class TokenizedComment:
    """A comment with its tokens; None where there is no text to judge."""

    comment: Comment
    tokens: Tokens | None
    unsupported_language: str | None = None
    """The language, where it is known and the model was not made for it."""

    @property
    def cost(self) -> int:
        return self.tokens.cost if self.tokens else 1


class ToxicHandler:
    """See :class:`feedmill.pipeline.handler.Handler`."""

    def __init__(
        self,
        loaded: LoadedClassifier,
        store: Store,
        max_text_chars: int,
        on_missing: Callable[[int], None],
        on_verdict: Callable[[str, Iterable[str]], None] = lambda _verdict, _labels: None,
        *,
        stores: bool = True,
    ) -> None:
        """``on_verdict`` is told each verdict and the labels at or above their thresholds; ``stores`` is off for a
        rollout's shadow."""
        self._loaded = loaded
        self._policy = loaded.policy
        self._model = loaded.model
        self._store = store
        self._max_text_chars = max_text_chars
        self._on_missing = on_missing
        self._on_verdict = on_verdict
        self._stores = stores
        self._tokenizing = Lane("tokenize")
        self.lanes = loaded.classifier.lanes
        self.batch_tokens = loaded.classifier.batch_tokens
        self._inferring = Lane("model", self.lanes)

    def close(self) -> None:
        self._tokenizing.close()
        self._inferring.close()

    async def ready(self) -> None:
        await self._store.ping()

    def decode(self, message: Message) -> Comment:
        body = message.body
        name = "_id" if body.get("_id") is not None else "commentId"
        identifier = None if body.get(name) is None else parse_id(body[name], name)
        return Comment(identifier, text_field(body, ("content", "text"), self._max_text_chars))

    async def prepare(self, requests: Sequence[Comment]) -> Sequence[TokenizedComment | MessageError]:
        return await self._tokenizing.run(self._tokenize, requests)

    def _tokenize(self, comments: Sequence[Comment]) -> list[TokenizedComment]:
        """Blocking. A text without words (nothing, or links alone) gets no tokens: it is clean without the model."""
        worded = [has_words(comment.text) for comment in comments]
        texts = [comment.text for comment, has in zip(comments, worded, strict=True) if has]
        tokens = iter(self._loaded.classifier.tokenize(texts) if texts else ())
        return [
            TokenizedComment(comment, next(tokens), unsupported(comment.text, self._loaded.languages))
            if has
            else TokenizedComment(comment, None)
            for comment, has in zip(comments, worded, strict=True)
        ]

    async def infer(self, batch: Sequence[TokenizedComment]) -> Sequence[Scores | MessageError]:
        """Scores per label. A text without words is judged without the model: no scores, hence clean."""
        tokens = [work.tokens for work in batch if work.tokens is not None]
        judged = iter(await self._inferring.run(self._loaded.judge, tokens) if tokens else ())
        return [next(judged) if work.tokens is not None else {} for work in batch]

    async def commit(self, batch: Sequence[tuple[TokenizedComment, Scores]]) -> Sequence[JsonObject | MessageError]:
        results = [self._result(work, scores) for work, scores in batch]
        for result, (_, scores) in zip(results, batch, strict=True):
            self._on_verdict(result["result"], self._reached(scores))
        if not self._stores:
            return list(results)
        stored = [
            (position, self._write(work.comment.id, results[position]))
            for position, (work, _) in enumerate(batch)
            if work.comment.id is not None
        ]
        report = await self._store.write(TOXIC.collection, [write for _, write in stored])
        self._on_missing(report.missing)
        answers: list[JsonObject | MessageError] = list(results)
        for (position, _), error in zip(stored, report.errors, strict=True):
            if error is not None:
                answers[position] = error
        return answers

    def _result(self, work: TokenizedComment, scores: Scores) -> JsonObject:
        language = work.unsupported_language
        # Scores on a language that the model never learnt are noise: they are told, and decide nothing.
        is_toxic = self._policy.is_toxic(scores) if scores and language is None else False
        result: JsonObject = {
            "commentId": None if work.comment.id is None else id_text(work.comment.id),
            "text": work.comment.text,
            "result": "toxic" if is_toxic else "clean",
            "isToxic": is_toxic,
            "labels": self._policy.rounded(scores) if scores else {},
            "model": self._model,
        }
        if language is not None:
            result["unsupportedLanguage"] = language
        if work.tokens is not None and work.tokens.truncated:
            result["truncated"] = True  # what is behind the last window was not judged: never silently
        return result

    def _reached(self, scores: Scores) -> list[str]:
        policy = self._policy
        return [name for name, score in scores.items() if score >= policy.thresholds.get(name, policy.threshold)]

    def _write(self, identifier: PostId, result: JsonObject) -> Write:
        toxicity: dict[str, Any] = {"labels": result["labels"], "model": self._model, "checkedAt": datetime.now(UTC)}
        toxicity |= {name: result[name] for name in ("unsupportedLanguage", "truncated") if name in result}
        return Write(
            identifier,
            {"$set": {"isToxic": result["isToxic"], "toxicity": toxicity}},
            upsert=self._store.settings.upsert,
        )
