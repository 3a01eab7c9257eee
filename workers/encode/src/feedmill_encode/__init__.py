"""Feedmill's encode worker."""
