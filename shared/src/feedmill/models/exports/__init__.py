"""Models exported to ONNX: built from the same weights, checked against torch, run without it (docs/adr/0007)."""
