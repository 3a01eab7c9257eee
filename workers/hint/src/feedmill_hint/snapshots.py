"""An inverted file on disk: a restarted pod reads it instead of the database, and follows what changed since.

A folder for each space holds two files, and a manifest that names them with their checksums and is put in place last:
what is there is whole, or noticed. Pods may share the folder: the last manifest counts.
"""

from __future__ import annotations

import json
import struct
import time
import uuid
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import bson

from feedmill.errors import FeedmillError
from feedmill.spaces import Space
from feedmill_hint.faiss import faiss
from feedmill_hint.ivf import IvfPart, Key

FORMAT = 1
MANIFEST = "manifest.json"
FORGOTTEN_SECONDS = 3600.0
"""Files that no manifest names are removed when they are so old: another pod may be writing younger ones."""

_CHUNK = 1 << 24


class SnapshotUnusable(FeedmillError):
    """There is none, or it is damaged, of another format, or of another space."""


@dataclass(frozen=True, slots=True)
class Position:
    """Up to where the index follows the database."""

    newest: datetime | None
    """The latest ``updatedAt`` among the vectors."""
    token: Mapping[str, Any] | None
    """The change stream's resume token, where there is a stream."""


@dataclass(frozen=True, slots=True)
class Restored:
    """What was read from a snapshot."""

    part: IvfPart
    made_for: int
    position: Position


def save(folder: Path, space: Space, part: IvfPart, made_for: int, position: Position) -> int:
    """Write a snapshot of ``part``, which nobody may change meanwhile; answer its bytes. Raises OSError."""
    home = folder / space.name
    home.mkdir(parents=True, exist_ok=True)
    stem = uuid.uuid4().hex
    index_file, keys_file = home / f"{stem}.faiss", home / f"{stem}.keys"
    try:
        faiss.write_index(part.index, str(index_file))
    except RuntimeError as error:  # faiss's word for a full disk
        raise OSError(f"{index_file} can't be written") from error
    keys_file.write_bytes(b"".join(_pack(key) for key in part.keys))
    manifest = {
        "format": FORMAT,
        "space": _identity(space),
        "vectors": len(part),
        "probes": part.probes,
        "made_for": made_for,
        "newest": position.newest.isoformat() if position.newest else None,
        "token": bson.encode(position.token).hex() if position.token else None,
        "files": {file.name: {"bytes": file.stat().st_size, "crc32": _crc32(file)} for file in (index_file, keys_file)},
    }
    former = _named(home)
    part_file = home / f"{stem}.manifest"
    part_file.write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    part_file.replace(home / MANIFEST)
    _remove_forgotten(home, former)
    return index_file.stat().st_size + keys_file.stat().st_size


def restore(folder: Path, space: Space) -> Restored:
    """Read the snapshot of ``space``. Raises SnapshotUnusable, saying why."""
    home = folder / space.name
    try:
        manifest = json.loads((home / MANIFEST).read_text(encoding="utf-8"))
        _check(home, manifest, space)
        index_file, keys_file = (home / name for name in sorted(manifest["files"]))
        index = faiss.read_index(str(index_file))
        keys = list(_unpack(keys_file.read_bytes()))
        part = IvfPart(index, keys, int(manifest["probes"]))
        if not len(part) == index.ntotal == manifest["vectors"] or index.d != space.dimensions:
            raise SnapshotUnusable(f"it holds {index.ntotal} vectors and {len(part)} ids")
        token = bson.decode(bytes.fromhex(manifest["token"])) if manifest["token"] else None
        newest = datetime.fromisoformat(manifest["newest"]) if manifest["newest"] else None
        return Restored(part, int(manifest["made_for"]), Position(newest, token))
    except FileNotFoundError as error:
        raise SnapshotUnusable(f"there is no {Path(error.filename or MANIFEST).name}") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error, RuntimeError) as error:
        raise SnapshotUnusable(f"it can't be read ({type(error).__name__}: {str(error)[:200]})") from error


def _check(home: Path, manifest: Mapping[str, Any], space: Space) -> None:
    if manifest["format"] != FORMAT:
        raise SnapshotUnusable(f"its format is {manifest['format']}: expected {FORMAT}")
    if manifest["space"] != _identity(space):
        raise SnapshotUnusable("it is of another space, revision or length")
    for name, expected in manifest["files"].items():
        file = home / Path(name).name
        if file.stat().st_size != expected["bytes"] or _crc32(file) != expected["crc32"]:
            raise SnapshotUnusable(f"{name} is damaged")


def _identity(space: Space) -> dict[str, Any]:
    return {"name": space.name, "revision": space.revision, "dimensions": space.dimensions}


def _pack(key: Key | None) -> bytes:
    if key is None:
        return b"\x00"
    if isinstance(key, bytes):
        return b"\x01" + key
    text = key.encode("utf-8")
    return b"\x02" + struct.pack("<H", len(text)) + text


def _unpack(packed: bytes) -> Iterator[Key | None]:
    place = 0
    while place < len(packed):
        kind = packed[place]
        if kind == 0:
            yield None
            place += 1
        elif kind == 1:
            yield packed[place + 1 : place + 13]
            place += 13
        else:
            (length,) = struct.unpack_from("<H", packed, place + 1)
            yield packed[place + 3 : place + 3 + length].decode("utf-8")
            place += 3 + length


def _crc32(file: Path) -> int:
    """Against damage, not against an attacker, who could write the manifest as well."""
    checksum = 0
    with file.open("rb") as source:
        while chunk := source.read(_CHUNK):
            checksum = zlib.crc32(chunk, checksum)
    return checksum


def _named(home: Path) -> set[str]:
    """The files that the manifest names; none where there is no sound one."""
    try:
        return set(json.loads((home / MANIFEST).read_text(encoding="utf-8"))["files"])
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def _remove_forgotten(home: Path, former: set[str]) -> None:
    """Remove what the former manifest named, and what none names when it is old. Best effort."""
    kept = _named(home) | {MANIFEST}
    for file in home.iterdir():
        with suppress(OSError):
            is_old = time.time() - file.stat().st_mtime > FORGOTTEN_SECONDS
            if file.name not in kept and (file.name in former or is_old):
                file.unlink()
