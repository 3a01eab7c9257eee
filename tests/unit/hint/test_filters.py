from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from feedmill.errors import Reject
from feedmill.settings import read
from feedmill_hint.filters import passes, read_filters
from feedmill_hint.settings import HintSettings

SETTINGS = read(HintSettings)


def allowed(post: dict[str, Any], author: object = "me", settings: HintSettings = SETTINGS, **body: Any) -> bool:
    return passes(post, author, read_filters(body, settings), settings)


def test_by_default_only_deleted_posts_are_left_out() -> None:
    assert allowed({"authorId": "me", "isToxic": True})
    assert not allowed({"deletedAt": datetime(2026, 1, 1, tzinfo=UTC)})
    assert not allowed({"deleted": True})
    assert allowed({"deleted": False, "isDeleted": None})
    assert allowed({"deleted": True}, exclude_deleted=False)


def test_the_message_wins_over_the_settings() -> None:
    strict = read(HintSettings, hint_exclude_toxic=True, hint_exclude_same_author=True, hint_author_field="by")
    assert not allowed({"isToxic": True}, settings=strict)
    assert allowed({"isToxic": True}, settings=strict, exclude_toxic=False)
    assert not allowed({"by": "me"}, settings=strict)
    assert allowed({"by": "you"}, settings=strict)
    assert allowed({"by": None}, author=None, settings=strict), "an unknown author is nobody's"


@pytest.mark.parametrize(
    ("value", "is_in"),
    [
        (datetime(2026, 2, 1), True),  # noqa: DTZ001 (naive, as the driver decodes it)
        (datetime(2025, 12, 31), False),  # noqa: DTZ001
        ("2026-01-01T02:00:00+02:00", True),
        ("2026-01-01T00:00:00+02:00", False),
        ("yesterday", False),
        (None, False),
        (17, False),
    ],
)
def test_since_compares_dates_of_any_form(value: object, is_in: bool) -> None:
    assert allowed({"createdAt": value}, since="2026-01-01T00:00:00Z") is is_in


@pytest.mark.parametrize(
    "body",
    [
        {"exclude_toxic": 1},
        {"exclude_same_author": "yes"},
        {"since": "soon"},
        {"since": 17},
        {"min_score": 2},
        {"min_score": "high"},
        {"min_score": float("nan")},
        {"min_score": True},
    ],
)
def test_a_bad_filter_is_rejected_by_name(body: dict[str, Any]) -> None:
    with pytest.raises(Reject, match=next(iter(body))):
        read_filters(body, SETTINGS)
