"""The bundled feed, and what is made of its answers."""

from __future__ import annotations

import io
import re
from typing import Any

import orjson
import pytest
from rich.console import Console

from feedmill.contract import ENCODE, HINT, TOXIC, Route
from feedmill_local import demo_report, sample_feed
from feedmill_local.client import Answer, Request
from feedmill_local.demo import Outcome, _interleaved
from feedmill_local.sample_feed import Feed


def answer(route: Route, result: dict[str, Any], sent: float = 0.0, received: float = 1.0) -> Answer:
    return Answer(Request(route, b"{}"), orjson.dumps(result), sent, received)


def test_the_feed_is_some_hundred_different_texts() -> None:
    feed = sample_feed.load()
    assert len(feed.posts) >= 200
    assert len(feed.comments) >= 200
    for documents in (feed.posts, feed.comments):
        assert len({document["_id"] for document in documents}) == len(documents)
        assert len({document["content"] for document in documents}) == len(documents)
        assert all(re.fullmatch("[0-9a-f]{24}", document["_id"]) for document in documents)
        assert all(document["author"] and document["content"].strip() for document in documents)
    assert len({post["title"] for post in feed.posts}) == len(feed.posts)
    lengths = sorted(len(post["content"]) for post in feed.posts)
    assert lengths[-1] > 5 * lengths[0]


def test_figures() -> None:
    answers = [answer(TOXIC, {}, sent=10.0, received=10.0 + n / 100) for n in range(1, 101)]
    found = demo_report.figures(answers)
    assert found.rate == pytest.approx(100.0)
    assert [found.percentile(share) for share in (0.5, 0.95, 0.99)] == pytest.approx([0.50, 0.95, 0.99])
    assert demo_report.figures(answers[:1]).percentile(0.5) == pytest.approx(0.01)


def test_two_rows_are_mixed_evenly() -> None:
    posts, comments = [Request(ENCODE, b"{}") for _ in range(2)], [Request(TOXIC, b"{}") for _ in range(4)]
    mixed = _interleaved(posts, comments)
    assert [request.route.worker for request in mixed] == ["encode", "toxic", "toxic", "encode", "toxic", "toxic"]
    assert [request for request in mixed if request.route is ENCODE] == posts


@pytest.mark.parametrize("is_terminal", [True, False])
def test_the_report_shows_verdicts_neighbours_and_speed(is_terminal: bool, capsys: pytest.CaptureFixture[str]) -> None:
    found = [{"post": {"_id": f"p{n}", "title": f"Post {n}"}, "score": 0.9 - n / 10} for n in range(1, 4)]
    verdict = {"commentId": "c1", "text": "You \x1b[31midiot", "labels": {"toxic": 0.987}, "model": "m"}
    answers = {
        "toxic": [answer(TOXIC, verdict | {"result": "toxic", "isToxic": True})],
        "encode": [answer(ENCODE, {"id": "p0", "status": "success"})],
        "hint": [answer(HINT, {"id": "p0", "status": "success", "homologous_posts": found})],
    }
    feed = Feed([{"_id": "p0", "title": "Asking post"}], [])
    out = io.StringIO()
    demo_report.show(Console(file=out, force_terminal=is_terminal, width=150), Outcome(feed, answers, []))
    shown = out.getvalue() if is_terminal else capsys.readouterr().out
    for expected in ("1 toxic, 0 clean", "0.987", "You \\x1b[31midiot", "Asking post", "0.800", "Post 1", "1000"):
        assert expected in shown


def test_a_report_without_answers_is_empty(capsys: pytest.CaptureFixture[str]) -> None:
    outcome = Outcome(Feed([], []), {"toxic": [], "encode": [], "hint": []}, ["toxic: not answered"])
    demo_report.show(Console(file=io.StringIO()), outcome)
    assert "Comments" not in capsys.readouterr().out
