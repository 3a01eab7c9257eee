#!/usr/bin/env bash
# Run a command with a docker engine: one that answers already (DOCKER_HOST, or Docker's usual socket), else a private one.
#
#   scripts/with_engine.sh make image-base images
#
# The private one needs root on Debian or a like system, which has it in the package docker.io (installed where it is
# missing). It makes no bridge and no firewall rules, so its containers and builds use the host's network. Its socket,
# containerd and data are in a temporary folder; when the command has ended, also by INT or TERM, it is stopped and the
# folder removed: no process, no mount, no file is left. Exits with the command's status.
set -euo pipefail
DOCKER=${DOCKER:-docker}
START_SECONDS=120
STOP_SECONDS=60

say() { echo "engine: $*"; }
answers() { timeout 20 "$DOCKER" version >/dev/null 2>&1; }

if (($# == 0)); then
  echo "usage: scripts/with_engine.sh COMMAND [ARGUMENT...]" >&2
  exit 2
fi
if command -v "$DOCKER" >/dev/null && answers; then
  say "the one that runs${DOCKER_HOST:+ at $DOCKER_HOST}"
  exec "$@"
fi
if [[ -n ${DOCKER_HOST:-} ]]; then
  echo "engine: none answers at DOCKER_HOST=$DOCKER_HOST; unset it for a private one" >&2
  exit 1
fi
if [[ $(id -u) != 0 ]]; then
  echo "engine: none answers, and only root can start a private one; start Docker, or set DOCKER_HOST" >&2
  exit 1
fi

root='' engine='' job=''

# The mounts below the folder, the innermost first.
mounts() { awk -v root="$root/" 'index($2, root) == 1 { print $2 }' /proc/mounts | tac; }

stop_engine() {
  timeout "$STOP_SECONDS" "$DOCKER" ps --all --quiet 2>/dev/null |
    timeout "$STOP_SECONDS" xargs --no-run-if-empty "$DOCKER" rm --force >/dev/null 2>&1 || true
  kill -TERM "$engine" 2>/dev/null || return 0
  for ((tries = 0; tries < STOP_SECONDS * 10; tries++)); do # it ends its containerd, then itself
    kill -0 "$engine" 2>/dev/null || return 0
    sleep 0.1
  done
  say "did not stop within $STOP_SECONDS s: killed"
  kill -KILL -- "-$engine" 2>/dev/null || true
}

clean_up() {
  local status=$? mount
  trap '' INT TERM
  trap - EXIT
  [[ -z $engine ]] || stop_engine
  [[ -n $root ]] || exit "$status"
  for mount in $(mounts); do umount "$mount" || umount --lazy "$mount" || true; done
  rm -rf --one-file-system "$root" || { say "could not remove $root" >&2 && ((status)) || status=1; }
  exit "$status"
}

# Ask the command and all that it has started to end, as ctrl-C would, and wait for it.
interrupt() {
  trap '' INT TERM
  if [[ -n $job ]]; then
    kill -INT -- "-$job" 2>/dev/null || true
    wait "$job" || true
  fi
  exit "$1"
}

# BuildKit builds stages side by side. Docker's client has it built in before version 23, later as the plugin buildx.
pick_builder() {
  local client
  for client in "$DOCKER" /usr/bin/docker; do
    if "$client" buildx version >/dev/null 2>&1 || [[ $("$client" --version) =~ version\ (19|20)\. ]]; then
      export DOCKER=$client DOCKER_BUILDKIT=1
      return
    fi
  done
}

trap clean_up EXIT
trap 'interrupt 130' INT
trap 'interrupt 143' TERM

cd "$(dirname "${BASH_SOURCE[0]}")/.."
started=$SECONDS
scripts/need.sh dockerd docker.io
scripts/need.sh "$DOCKER" docker-cli # in the same package before Debian 13
root=$(mktemp -d /var/tmp/feedmill-engine.XXXXXX) # not in /tmp, which may be in memory; short, as a socket's path must be
export DOCKER_HOST="unix://$root/docker.sock"
# In a session of its own: ctrl-C is for the command, whose containers are removed before their engine goes.
setsid dockerd --host "$DOCKER_HOST" --data-root "$root/data" --exec-root "$root/exec" --pidfile "$root/pid" \
  --bridge=none --iptables=false --ip6tables=false >"$root/log" 2>&1 &
engine=$!
until answers; do
  if ! kill -0 "$engine" 2>/dev/null || ((SECONDS - started > START_SECONDS)); then
    echo "engine: does not start; the end of its log:" >&2
    tail -n 15 "$root/log" >&2
    exit 1
  fi
  sleep 0.2
done
pick_builder
say "started a private one in $((SECONDS - started)) s ($("$DOCKER" info --format '{{.ServerVersion}}, {{.Driver}}'))"

set -m # the command gets a process group of its own, so that all of it can be interrupted, also where nohup or a shell's
# background made this script ignore ctrl-C, which its children would inherit
env --default-signal=INT "$@" &
job=$!
set +m
wait "$job"
