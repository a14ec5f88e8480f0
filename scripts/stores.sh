#!/usr/bin/env bash
# Installs the databases that hold results in the tests of result stores, where they are not found.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/apt.sh

# One line per store.
PACKAGES=(
    postgresql pgbouncer
    redis-server
)

is_installed() {
    compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null || return 1
    PATH=$PATH:/usr/sbin type -P pgbouncer >/dev/null || return 1
    type -P redis-server >/dev/null
}

refuse() {
    echo "PostgreSQL, pgbouncer or Redis is not installed, and $1: run \`apt-get install ${PACKAGES[*]}\` as root, then this again." >&2
    exit 1
}

install_packages is_installed refuse "${PACKAGES[@]}"
