"""Make the packages in a folder ready for an image: leave out what no worker loads, and compile modules.

Run while an image is built, after each ``pip install``: ``python3 trim_image.py /opt/feedmill/lib``. What goes: test
suites, C headers and sources, static libraries, type stubs, test programs, torch's debug symbols. What stays: every
Python module that a model could import, every licence, every package's metadata (lists of what is inside read it).
The tests of the images run what is left.
"""

from __future__ import annotations

import compileall
import os
import py_compile
import re
import shutil
import subprocess
import sys
from pathlib import Path

# Folders below site-packages. torch.testing stays, as torch.autograd imports it; torch._inductor, torch._dynamo and
# sympy stay, as transformers imports them.
FOLDERS = (
    "torch/test",
    "torch/include",
    "torch/share",
    "torch/lib/libshm_windows",
    "torch/bin/upgrader_models",
    "numpy/_core/include",
    "numpy/_core/lib",
    "numpy/random/lib",
    # Makers and optimisers of graphs: ours are made and fused already.
    "onnxruntime/quantization",
    "onnxruntime/tools",
    "onnxruntime/transformers",
)
# torch's own test programs, protoc, and libraries that only its tests load. torch_shm_manager stays: it shares tensors
# between processes.
FILES = (
    "torch/bin/*Test",
    "torch/bin/test_*",
    "torch/bin/protoc*",
    "torch/bin/script_module_v4.ptl",
    "torch/lib/libbackend_with_compiler.so",
    "torch/lib/libjitbackend_test.so",
    "torch/lib/libtorchbind_test.so",
)
TEST_PACKAGES = ("numpy", "sympy", "mpmath", "networkx", "fsspec", "yarl", "multidict", "torch/_numpy")
"""Packages whose folders named ``tests`` are suites. Elsewhere the name may mean something else."""
SUFFIXES = (".pyi", ".pyx", ".pxd", ".a", ".lib", ".h", ".hpp", ".cuh", ".c", ".cpp", ".cc", ".cu")
# The libraries with symbol tables worth cutting: libtorch_cpu.so loses a fifth. Others were rewritten by auditwheel,
# which strip may damage.
STRIPPED = ("torch/lib/libtorch_cpu.so", "torch/lib/libtorch_python.so")
# Of the 400 families of models in transformers, those that people classify and embed texts with. The others work too,
# but compile their module or two at each start (tenths of a second); compiled, they would weigh 50 MB.
COMPILED_FAMILIES = (
    "albert",
    "auto",
    "bert",
    "camembert",
    "deberta",
    "deberta_v2",
    "distilbert",
    "electra",
    "encoder_decoder",
    "gemma3",
    "llama",
    "modernbert",
    "mpnet",
    "mt5",
    "qwen2",
    "qwen3",
    "roberta",
    "t5",
    "xlm_roberta",
)


def trim(site: Path) -> None:
    """Delete what no worker loads from ``site``, a site-packages folder."""
    for name in FOLDERS:
        shutil.rmtree(site / name, ignore_errors=True)
    for pattern in FILES:
        for file in site.glob(pattern):
            file.unlink()
    for package in TEST_PACKAGES:
        for folder in sorted((site / package).rglob("tests"), reverse=True):
            shutil.rmtree(folder)
    for file in [file for file in site.rglob("*") if file.suffix in SUFFIXES and ".dist-info" not in str(file)]:
        file.unlink()


def strip(site: Path) -> None:
    """Cut the symbols that only a debugger reads. Raises where ``strip`` is missing or fails."""
    for name in STRIPPED:
        if (site / name).exists():
            subprocess.run(["strip", "--strip-unneeded", str(site / name)], check=True)


def compile_modules(site: Path) -> None:
    """Compile the modules: with a read-only root, what is not compiled here is compiled at every start.

    Unchecked, because the files never change in an image, and their times may: some builders set them to one date.
    """
    families = "|".join(map(re.escape, COMPILED_FAMILIES))
    compileall.compile_dir(
        site,
        quiet=2,
        force=True,
        rx=re.compile(rf"/transformers/models/(?!(?:{families})/)[^/]+/"),
        workers=0,
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )


def size_mb(folder: Path) -> int:
    return sum(file.lstat().st_size for file in folder.rglob("*")) >> 20


def main() -> int:
    for site in sorted(Path(sys.argv[1]).glob("python3*/site-packages")):
        before = size_mb(site)
        trim(site)
        strip(site)
        after = size_mb(site)
        compile_modules(site)
        print(f"{site}: {before} MB, cut to {after} MB, {size_mb(site)} MB with compiled modules", flush=True)
    return 0


if __name__ == "__main__":
    os.umask(0o022)
    sys.exit(main())
