#!/usr/bin/env bash
# Runs tests with another Python or other versions of what the package needs: NAME PYTEST-ARGUMENTS….
# NAME is `lowest`, the lowest versions that pyproject.toml allows, or a Python such as `3.12`, if it is installed.
set -euo pipefail
cd "$(dirname "$0")/.."

name=$1
shift
venv=$PWD/.amqpworker/versions-$name
constraints=constraints.txt
python=${PYTHON3:-python3}

# The Python of this name, also one that pyenv has and that is not on the PATH.
find_python() {
    local found
    for found in "$(type -P "python$1" || true)" "${PYENV_ROOT:-$HOME/.pyenv}"/versions/"$1".*/bin/python; do
        if [[ -x $found ]] && "$found" -c "import sys, venv; sys.exit('%d.%d' % sys.version_info[:2] != '$1')" 2>/dev/null; then
            echo "$found"
            return
        fi
    done
    echo "Python $1 is not installed: nothing was tested with it." >&2
    exit 4
}

if [[ $name == lowest ]]; then
    # The tools of the tests stay as they are; what users install is as old as it may be.
    mkdir -p .amqpworker
    constraints=.amqpworker/lowest.txt
    .venv/bin/python -c 'import re, tomllib
project = tomllib.load(open("pyproject.toml", "rb"))["project"]
needs = [*project["dependencies"], *project["optional-dependencies"]["schedules"]]
print("\n".join(re.sub(r">=([\d.]+).*", r"==\1", one) for one in needs))' >"$constraints"
else
    python=$(find_python "$name")
fi

if [[ ! -e $venv/complete || pyproject.toml -nt $venv/complete ]]; then
    "$python" -m venv --clear "$venv"
    mapfile -t tools < <(.venv/bin/python -c 'import tomllib
print("\n".join(tomllib.load(open("pyproject.toml", "rb"))["dependency-groups"]["dev"]))')
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --constraint "$constraints" \
        hatchling editables "${tools[@]}" 2>"$venv/pip.log"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --constraint "$constraints" \
        --no-build-isolation --editable '.[schedules]' 2>"$venv/pip.log" || {
        tail -5 "$venv/pip.log" >&2
        exit 1
    }
    touch "$venv/complete"
fi
"$venv/bin/python" -c 'import sys
from importlib.metadata import version
names = ("pika", "pydantic", "structlog", "tenacity", "typer")
print("Python", sys.version.split()[0], *(f"{name} {version(name)}" for name in names))'
# Without anyio's plugin: an older one, as pip may choose it here, imports what this pytest warns of.
exec "$venv/bin/python" -m pytest -p no:cacheprovider -p no:anyio "$@"
