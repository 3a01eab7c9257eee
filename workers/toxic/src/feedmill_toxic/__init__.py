"""Feedmill's toxic worker."""
