#!/usr/bin/env bash
# Runs tests with the Python and the RabbitMQ of another Debian release, inside of it: SUITE, then what scripts/test.sh takes.
# Packages are fetched outside, where pip is configured. Needs root, for chroot and mounts.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/debian.sh

make_root "$1"
shift
version=$(chroot "$root" python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')
wheels=$root/wheels
needs=$root/needs

# What the package and its tests need with that Python, without the package itself: pip would judge markers by the Python outside.
rm -rf "$needs.new"
mkdir "$needs.new"
.venv/bin/python - "$version" "$needs.new" <<'END'
import sys, tomllib
from pathlib import Path
from packaging.requirements import Requirement

version, folder = sys.argv[1], Path(sys.argv[2])
content = tomllib.loads(Path("pyproject.toml").read_text())
project = content["project"]
extras = [need for extra in project["optional-dependencies"].values() for need in extra]
pins = [line for line in Path("constraints.txt").read_text().splitlines() if not line.startswith("#")]


def write(name, lines):
    needs = [Requirement(line) for line in lines]
    there = {"python_version": version, "python_full_version": f"{version}.0"}
    chosen = [str(need).partition(";")[0] for need in needs if need.marker is None or need.marker.evaluate(there)]
    (folder / name).write_text("\n".join(chosen) + "\n")


write("requirements.txt", [*project["dependencies"], *extras, *content["dependency-groups"]["dev"], "hatchling", "editables"])
write("constraints.txt", pins)
END
if ! diff -rq "$needs.new" "$needs" >/dev/null 2>&1; then
    rm -rf "$needs" "$wheels" "$root/venv"
    echo "Fetching wheels for Python $version …"
    .venv/bin/python -m pip download --quiet --disable-pip-version-check --python-version "$version" --only-binary=:all: \
        --constraint "$needs.new/constraints.txt" --dest "$wheels" --requirement "$needs.new/requirements.txt" 2>"$root.pip.log" || {
        tail -5 "$root.pip.log" >&2
        exit 1
    }
    chroot "$root" python3 -m venv /venv
    chroot "$root" env -u PIP_CERT -u PIP_FIND_LINKS -u PIP_INDEX_URL PIP_CONFIG_FILE=/dev/null \
        /venv/bin/python -m pip install --quiet --no-index --find-links /wheels --requirement /needs.new/requirements.txt
    mv "$needs.new" "$needs"
fi

# A copy: what the tests write stays in there.
rm -rf "$root/checkout"
mkdir -p "$root/checkout" "$root/tmp"
git ls-files --cached --others --exclude-standard -z | xargs -0 cp --parents --target-directory "$root/checkout" 2>/dev/null || true

unshare --mount --pid --fork bash -c '
    root=$1
    shift
    mount -t proc proc "$root/proc"
    mount --rbind /dev "$root/dev"
    mount --rbind /sys "$root/sys"
    mount -t tmpfs tmpfs "$root/tmp"
    exec chroot "$root" env -i HOME=/root LANG=C.UTF-8 PATH=/venv/bin:/usr/sbin:/usr/bin:/sbin:/bin sh -c "
        cd /checkout
        ln -sfn /venv .venv
        python -m pip install --quiet --no-index --no-deps --no-build-isolation --editable . &&
        exec scripts/test.sh \"\$@\"" python "$@"' python "$root" "$@"
