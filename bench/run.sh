#!/bin/sh
# Run the benchmark from the checkout's virtual environment; all options go to `python -m bench.run`.
set -eu
cd "$(dirname "$0")/.."
exec .venv/bin/python -m bench.run "$@"
