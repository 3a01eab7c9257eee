#!/usr/bin/env bash
# Make the images that `make images` builds from, on a machine without a container registry:
#
#   feedmill-python:local  Debian bookworm with its Python, in place of docker.io/library/python:3.11-slim-bookworm
#   feedmill-build:local   the same with all locked wheels, for the build stages; the finished images hold nothing of it
#
# The wheels are fetched by the host's own pip, so its configuration (index, proxy, certificates, find-links) is in
# force, and neither that configuration nor a password in it goes into an image. Needs root, mmdebstrap, pip, and a
# docker engine. What is there already stays: to start anew, remove the images and .cache/images.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
DOCKER=${DOCKER:-docker}
PYTHON=${PYTHON:-python3}
PYTHON_IMAGE=feedmill-python:local
BUILD_IMAGE=feedmill-build:local
TORCH_INDEX=${TORCH_INDEX:-https://download.pytorch.org/whl/cpu}
cache=.cache/images
wheels=$cache/context/wheels

say() { echo "base image: $*"; }

make_python_image() {
  if "$DOCKER" image inspect "$PYTHON_IMAGE" >/dev/null 2>&1; then return; fi
  say "making $PYTHON_IMAGE with mmdebstrap (two minutes) ..."
  mmdebstrap --quiet --variant=minbase --include=python3,python3-venv,ca-certificates bookworm - |
    "$DOCKER" import --change 'CMD ["python3"]' - "$PYTHON_IMAGE" >/dev/null
}

# Each file has its own download: pip refuses one package in two versions, and the files may differ.
download() {
  "$PYTHON" -m pip -qq download --no-deps --only-binary :all: --python-version 3.11 --dest "$wheels" "$@"
}

fetch_wheels() {
  local file torch
  torch=$(sed -n 's/^torch==//p' requirements/torch.txt)
  for file in requirements/build.txt requirements/images/*.txt; do
    download -r "$file"
  done
  # The build for CPUs: where the host's pip finds it by itself (find-links), else from PyTorch's own index.
  download "torch==$torch+cpu" 2>/dev/null || download --index-url "$TORCH_INDEX" "torch==$torch+cpu"
}

make_wheels() {
  local digest
  digest=$(cat requirements/build.txt requirements/torch.txt requirements/images/*.txt | sha256sum)
  if [[ -f $cache/digest && $(<"$cache/digest") == "$digest" ]]; then return; fi
  say "fetching the locked wheels ..."
  rm -rf "$wheels"
  mkdir -p "$wheels"
  fetch_wheels
  echo "$digest" >"$cache/digest"
}

make_build_image() {
  say "making $BUILD_IMAGE ..."
  printf '[global]\nno-index = true\nfind-links = /wheels\ndisable-pip-version-check = true\n' >"$cache/context/pip.conf"
  printf 'FROM %s\nCOPY pip.conf /etc/pip.conf\nCOPY wheels /wheels\n' "$PYTHON_IMAGE" >"$cache/context/Dockerfile"
  "$DOCKER" build --quiet -t "$BUILD_IMAGE" "$cache/context" >/dev/null
}

make_python_image
make_wheels
make_build_image
say "done: make images PYTHON_IMAGE=$PYTHON_IMAGE BUILD_IMAGE=$BUILD_IMAGE"
