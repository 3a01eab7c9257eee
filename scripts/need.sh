#!/usr/bin/env bash
# Make sure that a program is there: from the package of Debian or a like system, where it is missing.
# Usage: scripts/need.sh PROGRAM PACKAGE. Fails, and says what is needed, where it can't be had.
set -euo pipefail
program=$1
package=$2
if command -v "$program" >/dev/null; then exit 0; fi
fail() {
  echo "need: $program is missing, and $1: install it (on Debian and Ubuntu: apt-get install $package)" >&2
  exit 1
}
command -v apt-get >/dev/null || fail "there is no apt-get"
[[ $(id -u) == 0 ]] || fail "only root can install packages"
echo "need: installing $package ..."
install() { DEBIAN_FRONTEND=noninteractive apt-get install --yes -qq --no-install-recommends "$package" >/dev/null; }
# The lists of packages may be missing or too old: then once more with new ones.
install 2>/dev/null || { apt-get update -qq && install; } || fail "apt-get could not install it"
command -v "$program" >/dev/null || fail "$package does not bring it"
