"""Model URIs: where a model comes from and, for the hub, which revision of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal
from urllib.parse import unquote, urlsplit

from feedmill.errors import ModelError

Scheme = Literal["hf", "file", "pkg"]

EXPECTED = "expected hf://owner/name@revision, file:///absolute/path or pkg://python_package"

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?")
_HUB_REVISION = re.compile(r"(?!.*\.\.)[A-Za-z0-9][\w./-]{0,199}")
_PACKAGE = re.compile(r"[A-Za-z_]\w*")


@dataclass(frozen=True, slots=True)
class ModelRef:
    """A parsed model URI.

    ``name`` is ``owner/name`` on the hub, an absolute path, or a top-level Python package. ``revision`` is a commit,
    tag or branch of the hub's repository, and empty for the others, whose revision is the hash of their files.
    """

    scheme: Scheme
    name: str
    revision: str = ""

    def __str__(self) -> str:
        return f"{self.scheme}://{self.name}" + (f"@{self.revision}" if self.revision else "")


def parse(uri: str) -> ModelRef:
    """Read a model URI.

    Raises:
        ModelError: says what is wrong with it and what was expected.
    """
    scheme, separator, rest = uri.strip().partition("://")
    if not separator:
        raise ModelError(f"model {uri!r}: no scheme; {EXPECTED}")
    match scheme:
        case "hf":
            return _parse_hub(uri, rest)
        case "file":
            return _parse_file(uri)
        case "pkg":
            if not _PACKAGE.fullmatch(rest):
                raise ModelError(f"model {uri!r}: {rest!r} is no top-level Python package's name; {EXPECTED}")
            return ModelRef("pkg", rest)
    raise ModelError(f"model {uri!r}: unknown scheme {scheme!r}; {EXPECTED}")


def _parse_hub(uri: str, rest: str) -> ModelRef:
    name, _, revision = rest.partition("@")
    if not _HUB_NAME.fullmatch(name):
        raise ModelError(f"model {uri!r}: {name!r} is no name of a hub repository; {EXPECTED}")
    if not revision:
        raise ModelError(
            f"model {uri!r}: no revision. Without one, two pods could run different weights under one name, and a push"
            f" to the repository would change verdicts and embeddings unseen. Add a commit from its history (or a tag):"
            f" hf://{name}@<commit>"
        )
    if not _HUB_REVISION.fullmatch(revision):
        raise ModelError(f"model {uri!r}: {revision!r} is no commit, tag or branch; {EXPECTED}")
    return ModelRef("hf", name, revision)


def _parse_file(uri: str) -> ModelRef:
    parts = urlsplit(uri.strip())
    path = PurePosixPath(unquote(parts.path))
    if parts.netloc or parts.query or parts.fragment or not path.is_absolute() or ".." in path.parts:
        raise ModelError(
            f"model {uri!r}: the path must be absolute and plain (three slashes: file:///models/x); {EXPECTED}"
        )
    return ModelRef("file", str(path))
