"""Models from the Hugging Face hub: the local cache first, then the network."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from feedmill.errors import ModelError, shorten
from feedmill.models.uri import ModelRef

logger = logging.getLogger(__name__)


def fetch(ref: ModelRef, cache_dir: str, patterns: Sequence[str], missing: Callable[[Path], list[str]]) -> Path:
    """The folder of ``ref`` in the cache, named by its commit, downloaded where it is not there or not whole.

    Cache first: a restart must not depend on the hub, and a cached revision can't have changed. A branch or a tag is
    looked up in the cache as well, so it stays at the commit that was fetched first.

    Args:
        patterns: file names to fetch; nothing else is.
        missing: tells what a folder lacks to be a whole model (an interrupted download leaves half of one).

    Raises:
        ModelError: neither the cache nor the network has it.
    """
    cached = _snapshot(ref, cache_dir, patterns, offline=True)
    if isinstance(cached, Path) and not missing(cached):
        return cached
    logger.info("fetching %s from the Hugging Face hub", ref)
    fetched = _snapshot(ref, cache_dir, patterns, offline=False)
    if isinstance(fetched, Path):
        return fetched
    raise ModelError(
        f"model {ref}: not in the cache {_cache_place(cache_dir)} and not to be had from the hub ({fetched}). Load it"
        f" beforehand, into the same cache: hf download {ref.name} --revision {ref.revision}"
        f"{f' --cache-dir {cache_dir}' if cache_dir else ''}"
    )


def _snapshot(ref: ModelRef, cache_dir: str, patterns: Sequence[str], *, offline: bool) -> Path | str:
    """The snapshot's folder, or why there is none."""
    import huggingface_hub
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # its HTTP client's: httpx or httpx2
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    try:
        path = huggingface_hub.snapshot_download(
            ref.name,
            revision=ref.revision,
            cache_dir=cache_dir or None,
            allow_patterns=list(patterns),
            local_files_only=offline,
        )
    # The library's own errors are OSErrors (not cached, no such repository, no access, offline) or ValueErrors (a bad
    # name); those of its HTTP client come through as they are.
    except (OSError, ValueError, HTTPError) as error:
        return shorten(f"{type(error).__name__}: {error}", 300)
    return Path(path)


def _cache_place(cache_dir: str) -> str:
    if cache_dir:
        return cache_dir
    from huggingface_hub.constants import HF_HUB_CACHE

    return str(HF_HUB_CACHE)
