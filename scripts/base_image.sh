#!/usr/bin/env bash
# Make the images that `make images` builds from, on a machine without a container registry:
#
#   feedmill-python:local  Debian bookworm with its Python, in place of docker.io/library/python:3.11-slim-bookworm
#   feedmill-build:local   the same with all locked wheels, for the build stages; the finished images hold nothing of it
#
# The wheels are fetched by the host's own pip, so its configuration (index, proxy, certificates, find-links) is in
# force, and neither that configuration nor a password in it goes into an image. Needs root, mmdebstrap (installed where
# apt-get is), pip, and a docker engine. What is there already stays: to start anew, remove the images and .cache/images.
# Debian's files are kept for a week in $FEEDMILL_CACHE/images (~/.cache/feedmill/images), for every engine.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
DOCKER=${DOCKER:-docker}
PYTHON=${PYTHON:-python3}
PYTHON_IMAGE=feedmill-python:local
BUILD_IMAGE=feedmill-build:local
TORCH_INDEX=${TORCH_INDEX:-https://download.pytorch.org/whl/cpu}
cache=.cache/images
wheels=$cache/context/wheels
kept=${FEEDMILL_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/feedmill}/images
KEEP_MINUTES=$((7 * 24 * 60)) # then Debian may have security updates

say() { echo "base image: $*"; }

# Debian's files as one archive; moved into place when it is whole, so that another run never reads half of it.
make_archive() {
  local archive=$kept/bookworm.tar part=$kept/bookworm.$$.tar
  if [[ -n $(find "$archive" -mmin "-$KEEP_MINUTES" 2>/dev/null) ]]; then return; fi
  scripts/need.sh mmdebstrap mmdebstrap
  say "fetching Debian with mmdebstrap (one or two minutes) ..."
  mkdir -p "$kept"
  mmdebstrap --quiet --variant=minbase --include=python3,python3-venv,ca-certificates bookworm "$part" ||
    { rm -f "$part" && return 1; }
  mv "$part" "$archive"
}

make_python_image() {
  if "$DOCKER" image inspect "$PYTHON_IMAGE" >/dev/null 2>&1; then return; fi
  say "making $PYTHON_IMAGE ..."
  "$DOCKER" import --change 'CMD ["python3"]' - "$PYTHON_IMAGE" <"$kept/bookworm.tar" >/dev/null
}

download() {
  "$PYTHON" -m pip -qq download --no-deps --only-binary :all: --python-version 3.11 --dest "$wheels" "$@"
}

# All files in one go: they are locked together, so that no package has two versions.
fetch_wheels() {
  local torch
  cat requirements/build.txt requirements/images/*.txt | sed 's/ *#.*//' | sort -u >"$cache/wheels.txt"
  download -r "$cache/wheels.txt"
  # The build for CPUs: where the host's pip finds it by itself (find-links), else from PyTorch's own index.
  torch=$(sed -n 's/^torch==//p' requirements/torch.txt)
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

# Debian's files and the wheels as one archive: quicker than a build, which would copy the wheels twice.
make_build_image() {
  local archive=$cache/build.tar
  say "making $BUILD_IMAGE ..."
  printf '[global]\nno-index = true\nfind-links = /wheels\ndisable-pip-version-check = true\n' >"$cache/context/pip.conf"
  cp "$kept/bookworm.tar" "$archive"
  # Python's tar, because GNU's can't add names of more than 100 characters to this kind of archive.
  "$PYTHON" - "$archive" "$cache/context" <<'END'
import sys, tarfile
archive, context = sys.argv[1:]
with tarfile.open(archive, "a", format=tarfile.GNU_FORMAT) as files:
    own = lambda file: file.replace(uid=0, gid=0, uname="root", gname="root", deep=False)
    files.add(f"{context}/pip.conf", "etc/pip.conf", filter=own)
    files.add(f"{context}/wheels", "wheels", filter=own)
END
  "$DOCKER" import - "$BUILD_IMAGE" <"$archive" >/dev/null
  rm "$archive"
}

make_archive
make_python_image
make_wheels
make_build_image
say "done: make images PYTHON_IMAGE=$PYTHON_IMAGE BUILD_IMAGE=$BUILD_IMAGE"
