#!/usr/bin/env bash
# Makes a RabbitMQ of another Debian release ready in a root of its own, and runs tests against it: SUITE PYTEST-ARGUMENTS….
# Needs root, for chroot and mounts; the mounts go with the end of this script, in a namespace of their own.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/apt.sh

suite=$1
shift
root=$PWD/.amqpworker/debian-$suite

is_installed() {
    type -P debootstrap unshare >/dev/null # `command -v` is content with one of several
}

refuse() {
    echo "There is no debootstrap, and $1: run \`apt-get install debootstrap\` as root, then this again." >&2
    exit 1
}

install_packages is_installed refuse debootstrap
[[ $(id -u) == 0 ]] || {
    echo "Another release of Debian can be entered by root only: run this as root." >&2
    exit 1
}

if [[ ! -e $root/ready ]]; then
    rm -rf "$root"
    mkdir -p "$root"
    echo "Fetching Debian $suite with its RabbitMQ (half a minute) …"
    debootstrap --variant=minbase --include=rabbitmq-server,ca-certificates "$suite" "$root" >"$root.log" 2>&1 || {
        tail -5 "$root.log" >&2
        exit 1
    }
    # Its own programs are entered; everything else of a test's node lies outside.
    mkdir -p "$root/scripts"
    for program in rabbitmq-server rabbitmqctl; do
        found=$(cd "$root" && ls -d usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin/$program)
        printf '#!/bin/sh\nexec chroot %q /%s "$@"\n' "$root" "$found" >"$root/scripts/$program"
        chmod +x "$root/scripts/$program"
    done
    cp /etc/hosts "$root/etc/hosts"
    touch "$root/ready"
fi

mkdir -p "$root/tmp"
unshare --mount bash -c '
    root=$1
    shift
    mount -t proc proc "$root/proc"
    mount --rbind /dev "$root/dev"
    mount --bind /tmp "$root/tmp"
    exec .venv/bin/python -m pytest --rabbitmq "$root/scripts" "$@"' newer "$root" "$@"
