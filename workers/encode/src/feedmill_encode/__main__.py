"""``feedmill-encode`` (or ``python -m feedmill_encode``): run the encode worker until SIGTERM.

``feedmill-encode spaces`` lists, switches and removes embedding spaces; ``feedmill-encode backfill`` fills the
configured model's space from the stored posts; ``feedmill-encode export-onnx`` makes what
``FEEDMILL_BACKEND=onnx`` runs.
"""

import sys

from feedmill.memory import reuse_blocks
from feedmill.starting import prepare

prepare()
reuse_blocks()

from feedmill.worker import run_worker  # noqa: E402 (the imports are what takes long)
from feedmill_encode.worker import KIND  # noqa: E402


def main() -> None:
    """Run what the command line asks for; never returns."""
    command, arguments = sys.argv[1:2], sys.argv[2:]
    if command == ["spaces"]:
        from feedmill_encode.spaces_command import run_spaces

        run_spaces(arguments)
    if command == ["backfill"]:
        from feedmill_encode.backfill.command import run_backfill

        run_backfill(arguments)
    if command == ["export-onnx"]:
        from feedmill.models.exports.command import export_onnx
        from feedmill_encode import DEFAULT_MODEL

        sys.exit(export_onnx("encode", DEFAULT_MODEL, arguments))
    run_worker(KIND, more="other commands: feedmill-encode spaces, backfill and export-onnx; each has a --help")


if __name__ == "__main__":
    main()
