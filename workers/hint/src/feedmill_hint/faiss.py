"""faiss without its types, which know neither what SWIG made nor keyword arguments."""

from __future__ import annotations

import importlib
from typing import Any

faiss: Any = importlib.import_module("faiss")
