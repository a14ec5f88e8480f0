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
needs=$root/requirements.txt

# The requirements of the package and of its tests, without the package itself.
.venv/bin/python -c 'import tomllib
content = tomllib.load(open("pyproject.toml", "rb"))
project, tools = content["project"], content["dependency-groups"]["dev"]
print("\n".join([*project["dependencies"], *project["optional-dependencies"]["schedules"], *tools, "hatchling", "editables"]))' >"$needs.new"
if ! cmp -s "$needs.new" "$needs" || [[ constraints.txt -nt $needs ]]; then
    rm -rf "$wheels" "$root/venv"
    echo "Fetching wheels for Python $version …"
    .venv/bin/python -m pip download --quiet --disable-pip-version-check --python-version "$version" --only-binary=:all: \
        --constraint constraints.txt --dest "$wheels" --requirement "$needs.new" 2>"$root.pip.log" || {
        tail -5 "$root.pip.log" >&2
        exit 1
    }
    chroot "$root" python3 -m venv /venv
    chroot "$root" env -u PIP_CERT -u PIP_FIND_LINKS -u PIP_INDEX_URL PIP_CONFIG_FILE=/dev/null \
        /venv/bin/python -m pip install --quiet --no-index --find-links /wheels --requirement /requirements.txt.new
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
