#!/usr/bin/env bash
# Builds the wheel, installs it into a virtual environment of its own and runs the acceptance tests there.
# The tests run from a copy: beside the checkout, Python would import the checkout.
set -euo pipefail
cd "$(dirname "$0")/.."

build=.amqpworker/acceptance
venv=.amqpworker/acceptance-venv
pip=("$venv/bin/python" -m pip --quiet --disable-pip-version-check)

rm -rf "$build"
mkdir -p "$build"
.venv/bin/python -m pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation --wheel-dir "$build/dist" .
wheels=("$build"/dist/amqpworker-*.whl)

[[ -x $venv/bin/python ]] || .venv/bin/python -m venv "$venv"
"${pip[@]}" install --constraint constraints.txt pytest pytest-timeout hypothesis "${wheels[0]}"
"${pip[@]}" install --force-reinstall --no-deps "${wheels[0]}"

cp -R tests pyproject.toml "$build/"
export AMQPWORKER_PYTHON="$PWD/$venv/bin/python"
unset PYTHONPATH
cd "$build"
"$AMQPWORKER_PYTHON" -I -c 'import amqpworker, sys
assert amqpworker.__file__.startswith(sys.prefix), amqpworker.__file__
print("acceptance: testing", amqpworker.__file__)'
exec "$AMQPWORKER_PYTHON" -m pytest tests/acceptance "$@"
