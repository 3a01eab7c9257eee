"""The names on the wire that producers and consumers already use. They never change."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Route:
    """Where a worker's messages come from and where its results go."""

    worker: str
    exchange: str
    queue: str
    """The input queue; also its routing key in ``exchange``."""
    result_queue: str
    """The result queue; also its routing key in ``exchange``."""
    collection: str
    source: str = ""
    """The queue that is consumed instead of ``queue``: a rollout's candidate has one of its own."""

    @property
    def consumed(self) -> str:
        """The queue that the worker takes its messages from."""
        return self.source or self.queue

    @property
    def candidate_queue(self) -> str:
        """Where the stable worker puts what a rollout's candidate shall handle."""
        return f"{self.queue}.candidate"

    @property
    def dead_queue(self) -> str:
        return f"{self.queue}.dead"

    @property
    def alone_queue(self) -> str:
        """Where messages wait that came back from workers too often: each is handled with no other in hand."""
        return f"{self.queue}.alone"

    def retry_queue(self, delay_seconds: int) -> str:
        """The queue in which a message waits ``delay_seconds`` before it returns to the input queue."""
        return f"{self.queue}.retry.{delay_seconds}s"


TOXIC = Route("toxic", "toxic-detect-exchange", "toxic-detect-queue", "result-detect-queue", "comments")
HINT = Route("hint", "hint-post-exchange", "hint-post-queue", "result-hint-post-queue", "posts")
ENCODE = Route("encode", "encode-post-exchange", "encode-post-queue", "result-encode-post-queue", "posts")

ROUTES = {route.worker: route for route in (TOXIC, ENCODE, HINT)}

SPACES_COLLECTION = "vector_spaces"
"""One document per embedding space, and the pointer to the active one."""

VECTORS_COLLECTION_PREFIX = "post_embeddings."
"""One collection per embedding space: this prefix and the space's name."""
