#!/usr/bin/env bash
# Installs rabbitmq-server by apt where no RabbitMQ is found, as root or by sudo without a password.
set -euo pipefail
cd "$(dirname "$0")/.."

is_installed() {
    .venv/bin/python -c 'import sys
from amqpworker.errors import ConfigError
from amqpworker.testing.configuration import scripts_folder
try:
    scripts_folder()
except ConfigError:
    sys.exit(3)' || {
        [[ $? == 3 ]] || exit 1
        return 1
    }
}

as_root() {
    if [[ $(id -u) == 0 ]]; then "$@"; else sudo -n "$@"; fi
}

apt() {
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 "$@"
}

fail() {
    echo "RabbitMQ is not installed, and $1: run \`apt-get install rabbitmq-server\` as root, then this again" \
        "(for make demo, AMQPWORKER_URL with a running broker's address does too)." >&2
    exit 1
}

is_installed && exit 0
command -v apt-get >/dev/null || fail "there is no apt-get here"
as_root true 2>/dev/null || fail "this user cannot install it (not root, no sudo without a password)"

echo "setup: installing rabbitmq-server with apt-get"
log=.amqpworker/apt.log
for _ in 1 2 3 4 5; do
    # the second of two clones waits for the lock of the first; the package lists have a lock that apt does not wait for
    { apt update && apt install -y --no-install-recommends rabbitmq-server; } >"$log" 2>&1 || sleep 3
    if is_installed; then exit 0; fi
done
tail -n 3 "$log" >&2
fail "apt-get could not install it ($log)"
