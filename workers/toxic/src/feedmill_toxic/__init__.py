"""Feedmill's toxic worker."""

DEFAULT_MODEL = "pkg://feedmill_toxic"
