"""Which posts may be in an answer, by the settings and by the message."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from feedmill.errors import Reject
from feedmill_hint.settings import HintSettings


@dataclass(frozen=True, slots=True)
class Filters:
    """One request's filters. Checked on the stored post, so that a change of it counts at once."""

    same_author: bool
    """Whether posts by the asking post's author are left out, and so for the next two."""
    deleted: bool
    toxic: bool
    since: datetime | None
    min_score: float


def read_filters(body: Mapping[str, Any], settings: HintSettings) -> Filters:
    """The message's own filters, and the settings' where it says nothing. Raises Reject, naming the field."""
    return Filters(
        same_author=_flag(body, "exclude_same_author", settings.hint_exclude_same_author),
        deleted=_flag(body, "exclude_deleted", settings.hint_exclude_deleted),
        toxic=_flag(body, "exclude_toxic", settings.hint_exclude_toxic),
        since=_date(body.get("since")),
        min_score=_score(body.get("min_score"), settings.hint_min_score),
    )


def passes(post: Mapping[str, Any], author: object, filters: Filters, settings: HintSettings) -> bool:
    """Whether ``post`` may be in the answer to a post by ``author`` (None: unknown)."""
    if filters.same_author and author is not None and post.get(settings.hint_author_field) == author:
        return False
    if filters.deleted and any(post.get(field) for field in split(settings.hint_deleted_fields)):
        return False
    if filters.toxic and post.get("isToxic"):
        return False
    return filters.since is None or _is_since(post.get(settings.hint_date_field), filters.since)


def split(fields: str) -> list[str]:
    """Names of fields, separated by commas."""
    return [name.strip() for name in fields.split(",") if name.strip()]


def _is_since(value: object, since: datetime) -> bool:
    """A post without a readable date is not known to be recent enough."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return False
    if not isinstance(value, datetime):
        return False
    return (value.replace(tzinfo=UTC) if value.tzinfo is None else value) >= since


def _flag(body: Mapping[str, Any], name: str, default: bool) -> bool:
    value = body.get(name)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise Reject("bad_filter", f"{name}: expected true or false")
    return value


def _date(value: object) -> datetime | None:
    if value is None:
        return None
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            raise Reject("bad_filter", "since: expected a date in ISO 8601, such as 2026-01-31T00:00:00Z") from None
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    raise Reject("bad_filter", "since: expected a date in ISO 8601, such as 2026-01-31T00:00:00Z")


def _score(value: object, default: float) -> float:
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not -1 <= value <= 1:
        raise Reject("bad_filter", "min_score: expected a number from -1 to 1")
    return float(value)
