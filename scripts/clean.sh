#!/usr/bin/env bash
# Ends the nodes of this checkout and removes everything that git does not know and make has made.
set -euo pipefail
cd "$(dirname "$0")/.."

if [[ -d .amqpworker && -x .venv/bin/python ]]; then
    find .amqpworker -name node.json -print0 | xargs -0 --no-run-if-empty .venv/bin/python -c 'import sys
from pathlib import Path
from amqpworker.testing import Node
for record in sys.argv[1:]:
    Node(Path(record).parent).discard()'
fi
rm -rf .venv .amqpworker bench/.venv bench/.build dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage
find . -name __pycache__ -type d -prune -exec rm -rf {} +
