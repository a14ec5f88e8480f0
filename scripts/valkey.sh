#!/usr/bin/env bash
# Fetches the Valkey of Debian trixie for the tests of result stores. Needs root.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/debian.sh

make_root trixie
