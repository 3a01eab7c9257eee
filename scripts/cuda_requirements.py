"""Print what the installed torch requires of CUDA: nothing for a build for CPUs.

Torch's other requirements are locked in requirements/images. CUDA's libraries are pinned by torch itself, exactly and
for each of its builds, and lie on the same index.
"""

from __future__ import annotations

import re
from importlib.metadata import requires

CUDA = re.compile(r"(nvidia|cuda|triton|pytorch-triton)\b")

for requirement in requires("torch") or []:
    if CUDA.match(requirement) and "extra ==" not in requirement:
        print(requirement)
