"""Measuring a toxicity model on labelled comments: ``feedmill-toxic evaluate``."""
