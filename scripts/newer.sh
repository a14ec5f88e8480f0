#!/usr/bin/env bash
# Runs tests against the RabbitMQ of another Debian release: SUITE PYTEST-ARGUMENTS….
# Needs root, for chroot and mounts; the mounts end with this script, in a namespace of their own.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/debian.sh

make_root "$1"
shift
mkdir -p "$root/tmp"
unshare --mount bash -c '
    root=$1
    shift
    mount -t proc proc "$root/proc"
    mount --rbind /dev "$root/dev"
    mount --bind /tmp "$root/tmp"
    exec .venv/bin/python -m pytest --rabbitmq "$root/scripts" "$@"' newer "$root" "$@"
