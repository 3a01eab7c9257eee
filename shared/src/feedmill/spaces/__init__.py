"""Embedding spaces: one collection of vectors for each model revision, and a pointer to the active one.

``post_embeddings.<space>`` holds ``{_id, vector, contentHash, updatedAt}``: the post's id, a BSON Binary float32 vector
(subtype 9), and the time of the write by the server's own clock (``$currentDate``), so that a reader that polls by
``updatedAt`` compares times of one clock. ``vector_spaces`` holds one document per space (model, revision, dimensions,
state, counts, and how far its backfill is) and ``{_id: "active", space}``.
"""

from feedmill.spaces.posts import copy_embeddings, remove_orphans
from feedmill.spaces.registry import (
    Pointer,
    SpaceInfo,
    activate,
    active_name,
    active_pointer,
    active_space,
    backfill_progress,
    coverage,
    drop_space,
    ensure_active,
    list_spaces,
    note_counts,
    register_space,
)
from feedmill.spaces.space import Space
from feedmill.spaces.vectors import (
    ContentState,
    StoredVector,
    Vector,
    VectorWrite,
    changed_since,
    complete_posts,
    content_hash,
    content_states,
    read_stored,
    read_vectors,
    sample_vectors,
    stream_ids,
    stream_vectors,
    unchanged_vectors,
    watch_vectors,
    write_if_unmoved,
    write_posts,
    write_vectors,
)

__all__ = [
    "ContentState",
    "Pointer",
    "Space",
    "SpaceInfo",
    "StoredVector",
    "Vector",
    "VectorWrite",
    "activate",
    "active_name",
    "active_pointer",
    "active_space",
    "backfill_progress",
    "changed_since",
    "complete_posts",
    "content_hash",
    "content_states",
    "copy_embeddings",
    "coverage",
    "drop_space",
    "ensure_active",
    "list_spaces",
    "note_counts",
    "read_stored",
    "read_vectors",
    "register_space",
    "remove_orphans",
    "sample_vectors",
    "stream_ids",
    "stream_vectors",
    "unchanged_vectors",
    "watch_vectors",
    "write_if_unmoved",
    "write_posts",
    "write_vectors",
]
