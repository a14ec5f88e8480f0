#!/usr/bin/env bash
# Installs what is needed to boot a machine with systemd as its first process; reports what else is missing.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/apt.sh

is_installed() {
    type -P systemd-nspawn systemctl systemd-analyze dbus-daemon >/dev/null # `command -v` is content with one of several
}

refuse() {
    echo "There is no systemd-nspawn, and $1: run \`apt-get install systemd-container dbus\` as root, then this again." >&2
    exit 1
}

install_packages is_installed refuse systemd systemd-container dbus
[[ $(id -u) == 0 ]] || {
    echo "A machine of its own can be booted by root only: run this as root." >&2
    exit 1
}
