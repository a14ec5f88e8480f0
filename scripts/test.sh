#!/usr/bin/env bash
# Runs the unit tests beside the integration tests, which mostly wait; the output of the former is printed at the end.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 2

output=$(mktemp) || exit 2
.venv/bin/python -m pytest tests/unit "$@" >"$output" 2>&1 &
unit=$!
trap 'kill "$unit" 2>/dev/null; rm -f "$output"' EXIT
.venv/bin/python -m pytest tests/integration "$@"
integration=$?
wait "$unit"
unit_tests=$?
cat "$output"
exit $((integration || unit_tests))
