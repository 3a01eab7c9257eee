"""``feedmill-toxic`` (or ``python -m feedmill_toxic``): run the toxic worker until SIGTERM.

``feedmill-toxic evaluate`` measures the configured model on labelled comments instead; ``feedmill-toxic export-onnx``
makes what ``FEEDMILL_BACKEND=onnx`` runs.
"""

import sys

from feedmill.memory import reuse_blocks
from feedmill.starting import prepare

prepare()
reuse_blocks()

from feedmill.worker import run_worker  # noqa: E402 (the imports are what takes long)
from feedmill_toxic.worker import KIND  # noqa: E402


def main() -> None:
    """Run what the command line asks for; never returns."""
    if sys.argv[1:2] == ["evaluate"]:
        from feedmill_toxic.evaluation.command import evaluate

        sys.exit(evaluate(sys.argv[2:]))
    if sys.argv[1:2] == ["export-onnx"]:
        from feedmill.models.exports.command import export_onnx
        from feedmill_toxic import DEFAULT_MODEL

        sys.exit(export_onnx("toxic", DEFAULT_MODEL, sys.argv[2:]))
    run_worker(KIND, more="other commands: feedmill-toxic evaluate and export-onnx; each has a --help")


if __name__ == "__main__":
    main()
