#!/usr/bin/env bash
# Runs the demo on DIR (default: the standard library); KEEP=1 leaves broker and workers running.
set -euo pipefail
cd "$(dirname "$0")/.."

arguments=()
[[ -n ${DIR:-} ]] && arguments+=("$DIR")
[[ -n ${KEEP:-} && ${KEEP} != 0 ]] && arguments+=(--keep)

# Python answers a Ctrl-C with a traceback until the demo listens to it. In the background it ignores one until then, and
# this script passes on a SIGTERM, which silently ends a Python that has just started.
demo=
interrupted=
hand_on() {
    interrupted=1
    if [[ -n $demo ]]; then kill -TERM "$demo" 2>/dev/null || true; fi
}
trap hand_on INT TERM HUP
.venv/bin/python -m examples.demo "${arguments[@]}" &
demo=$!
if [[ -n $interrupted ]]; then hand_on; fi # it came between the two lines above
# More than once: a signal ends a `wait` before the demo has tidied up.
while :; do
    code=0
    wait "$demo" 2>/dev/null || code=$?
    kill -0 "$demo" 2>/dev/null || break
done
if [[ -n $interrupted ]]; then exit 130; fi
exit "$code"
