#!/usr/bin/env bash
# Installs Go and its AMQP client, for the benchmark's bare Go consumer and for tests/languages, where they are not found.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/apt.sh

PACKAGES=(golang-go golang-github-rabbitmq-amqp091-go-dev)

is_installed() {
    dpkg-query --show --showformat='${db:Status-Status}\n' "${PACKAGES[@]}" 2>/dev/null | grep -cx installed | grep -qx ${#PACKAGES[@]}
}

refuse() {
    echo "Go is not installed, and $1: run \`apt-get install ${PACKAGES[*]}\` as root, then this again" \
        "(or leave its row of the benchmark out: \`bench/run.sh --only ROW\`)." >&2
    exit 1
}

install_packages is_installed refuse "${PACKAGES[@]}"
