"""Feedmill on one machine."""
