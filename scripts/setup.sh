#!/usr/bin/env bash
# Makes .venv with the pinned versions; a second run sees that nothing changed and ends at once.
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON3:-python3}
stamp=.venv/.complete

fail() {
    echo "setup: $*" >&2
    exit 1
}

is_complete() {
    # the path is in the stamp because a virtual environment does not survive being moved
    [[ -x .venv/bin/python && -f $stamp && "$(<"$stamp")" == "$PWD" ]] || return 1
    local input
    for input in pyproject.toml constraints.txt scripts/setup.sh; do
        [[ $input -nt $stamp ]] && return 1
    done
    return 0
}

dev_tools() {
    .venv/bin/python -c 'import tomllib
print("\n".join(tomllib.load(open("pyproject.toml", "rb"))["dependency-groups"]["dev"]))'
}

install() {
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt "$@"
}

is_usable() {
    # made for another path it is not: its programs name the Python that they were installed for
    [[ -f .venv/pyvenv.cfg && "$(sed -n 's/^command = //p' .venv/pyvenv.cfg)" == *" $PWD/.venv" ]] &&
        .venv/bin/python -m pip --version >/dev/null 2>&1
}

make_venv() {
    command -v "$python" >/dev/null || fail "python3 is missing: apt-get install python3 python3-venv"
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || fail "Python 3.11 or newer is needed"
    "$python" -c 'import ensurepip, venv' 2>/dev/null || fail "venv is missing: apt-get install python3-venv"
    echo "setup: making .venv (half a minute)"
    rm -f "$stamp"
    is_usable || "$python" -m venv --clear .venv
    local tools
    mapfile -t tools < <(dev_tools)
    install hatchling editables "${tools[@]}"
    install --no-build-isolation --editable '.[django,postgresql,redis,schedules]'
    printf '%s' "$PWD" >"$stamp"
}

mkdir -p .amqpworker
exec 9>.amqpworker/setup.lock
flock 9 # two makes in one checkout
is_complete || make_venv
exec 9>&-
[[ -n ${AMQPWORKER_URL:-} ]] || scripts/rabbitmq.sh
