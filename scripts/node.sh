#!/usr/bin/env bash
# Installs what tests/languages needs: curl, Node with its AMQP client and the schema of AsyncAPI, and Go with its client.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/apt.sh

PACKAGES=(nodejs npm curl)
# Below .amqpworker, without a lock file: that would record from where they were downloaded.
MODULES=(amqplib@2.3.1 @asyncapi/specs@6.11.1)
folder=.amqpworker/node
stamp=$folder/.modules

is_installed() {
    local program
    for program in node npm curl; do
        type -P "$program" >/dev/null || return 1
    done
}

refuse() {
    echo "Node or curl is not installed, and $1: run \`apt-get install ${PACKAGES[*]}\` as root, then this again." >&2
    exit 1
}

install_packages is_installed refuse "${PACKAGES[@]}"
[[ -f $stamp && "$(<"$stamp")" == "${MODULES[*]}" ]] || {
    echo "setup: installing ${MODULES[*]} with npm"
    mkdir -p "$folder"
    npm install --prefix "$folder" --no-save --no-package-lock --no-audit --no-fund --loglevel error "${MODULES[@]}"
    printf '%s' "${MODULES[*]}" >"$stamp"
}
scripts/golang.sh
