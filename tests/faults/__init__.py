"""Faults injected into the running system, and an accounting of what became of every message: docs/reliability.md."""
