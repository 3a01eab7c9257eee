"""A post and the text of it that is encoded: the same for messages and for stored posts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from feedmill.errors import Reject
from feedmill.ids import PostId
from feedmill.spaces import content_hash
from feedmill.wire import text_field


@dataclass(frozen=True, slots=True)
class Post:
    """A post to encode. A title is encoded as the text's first line."""

    id: PostId
    title: str
    content: str

    @property
    def text(self) -> str:
        return f"{self.title}\n{self.content}".strip()

    @property
    def hash(self) -> str:
        return content_hash(self.text)


def read_post(post_id: PostId, fields: Mapping[str, Any], max_text_chars: int) -> Post:
    """The post with these ``fields`` (``content``, ``title``).

    Raises:
        Reject: missing_field, wrong_type, too_long, empty_text.
    """
    title = text_field(fields, ("title",), max_text_chars, required=False)
    post = Post(post_id, title, text_field(fields, ("content",), max_text_chars))
    if not post.text:
        raise Reject("empty_text", "content: empty, expected text (or a title)")
    return post
