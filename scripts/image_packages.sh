#!/usr/bin/env bash
# The Python packages that are in images (not those that were meant to be): a bill of materials, or known vulnerabilities.
# Usage: scripts/image_packages.sh sbom|scan IMAGE...
# A package that the vulnerability database does not know fails the scan: no answer is no clean bill.
# The tools (cyclonedx-bom, pip-audit) come from PyPI into .cache/image-tools, apart from .venv.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
DOCKER=${DOCKER:-docker}
PYTHON=${PYTHON:-python3}
tools=.cache/image-tools
out=.cache/sbom
list='from importlib.metadata import distributions
ours = ("feedmill",)
print("\n".join(sorted(f"{d.name}=={d.version.partition(chr(43))[0]}" for d in distributions() if not d.name.startswith(ours))))'

if [[ ! -f $tools/done ]]; then
  "$PYTHON" -m venv "$tools"
  "$tools/bin/pip" install --quiet 'cyclonedx-bom>=7,<8' 'pip-audit>=2.10,<3'
  touch "$tools/done"
fi

mode=$1
shift
mkdir -p "$out"
failed=0
for image in "$@"; do
  file=$out/$(basename "${image%%:*}")
  # Only what is in our virtual environment: a base image brings its own Python packages, such as pip.
  "$DOCKER" run --rm --network none --read-only --user 10001:10001 --entrypoint python3 "$image" -I -c "$list" >"$file.txt"
  case $mode in
    sbom) "$tools/bin/cyclonedx-py" requirements "$file.txt" --of JSON -o "$file.cdx.json" && echo "$file.cdx.json" ;;
    scan) "$tools/bin/pip-audit" --requirement "$file.txt" --no-deps --disable-pip --strict || failed=1 ;;
    *) echo "expected sbom or scan, not $mode" >&2 && exit 2 ;;
  esac
done
exit $failed
