"""Feedmill's hint worker."""
