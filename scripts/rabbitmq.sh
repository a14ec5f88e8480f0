#!/usr/bin/env bash
# Installs rabbitmq-server where no RabbitMQ is found.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/apt.sh

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

refuse() {
    echo "RabbitMQ is not installed, and $1: run \`apt-get install rabbitmq-server\` as root, then this again" \
        "(for make demo, AMQPWORKER_URL with a running broker's address does too)." >&2
    exit 1
}

install_packages is_installed refuse rabbitmq-server
