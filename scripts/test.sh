#!/usr/bin/env bash
# Runs tests in two lanes side by side, as tests against a broker mostly wait: LANE… -- LANE… [-- PYTEST-ARGUMENTS…].
# The output of the second lane is printed at the end. What has no `--` in it is one lane.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 2

first=()
second=()
while (($#)) && [[ $1 != -- ]]; do
    first+=("$1")
    shift
done
shift
while (($#)) && [[ $1 != -- ]]; do
    second+=("$1")
    shift
done
shift
((${#second[@]})) || exec .venv/bin/python -m pytest "${first[@]}"

output=$(mktemp) || exit 2
.venv/bin/python -m pytest "${second[@]}" "$@" >"$output" 2>&1 &
lane=$!
trap 'kill "$lane" 2>/dev/null; rm -f "$output"' EXIT
.venv/bin/python -m pytest "${first[@]}" "$@"
of_first=$?
wait "$lane"
of_second=$?
cat "$output"
# 5 is "no tests": with `-k`, what was chosen may all be in the other lane.
((of_first != 5)) || of_first=$of_second
((of_second != 5)) || of_second=$of_first
((of_first == 0 && of_second == 0)) || echo "Exit codes of the two lanes: $of_first, $of_second"
exit $((of_first || of_second))
