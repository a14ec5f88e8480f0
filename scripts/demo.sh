#!/usr/bin/env bash
# Runs the demo on DIR (default: the standard library); KEEP=1 leaves broker and workers running.
set -euo pipefail
cd "$(dirname "$0")/.."

arguments=()
[[ -n ${DIR:-} ]] && arguments+=("$DIR")
[[ -n ${KEEP:-} && ${KEEP} != 0 ]] && arguments+=(--keep)
exec .venv/bin/python -m examples.demo "${arguments[@]}"
