# A Debian release in a root of its own, `root`, with its servers and its Python; to be sourced by scripts that need root.
source scripts/apt.sh

PACKAGES=(rabbitmq-server valkey-server ca-certificates python3 python3-venv openssl procps)
# What else is needed by tests that run inside: those with the Python of trixie.
INSIDE=(postgresql redis-server curl)

is_installed() {
    type -P debootstrap unshare >/dev/null # `command -v` is content with one of several
}

refuse() {
    echo "There is no debootstrap, and $1: run \`apt-get install debootstrap\` as root, then this again." >&2
    exit 1
}

# make_root SUITE: fetches the release once, and sets `root` to its folder.
make_root() {
    local suite=$1 packages=("${PACKAGES[@]}")
    [[ $suite != trixie ]] || packages+=("${INSIDE[@]}")
    root=$PWD/.amqpworker/debian-$suite
    install_packages is_installed refuse debootstrap
    [[ $(id -u) == 0 ]] || {
        echo "Another release of Debian can be entered by root only: run this as root." >&2
        exit 1
    }
    # `ready` holds what was installed: a list of today has more than one of yesterday
    [[ -e $root/usr/bin/python3 && $(cat "$root/ready" 2>/dev/null) == "${packages[*]}" ]] && return
    rm -rf "$root"
    mkdir -p "$root"
    echo "Fetching Debian $suite with its servers and its Python (a minute or two) …"
    debootstrap --variant=minbase --include="$(IFS=, && echo "${packages[*]}")" "$suite" "$root" >"$root.log" 2>&1 || {
        tail -5 "$root.log" >&2
        exit 1
    }
    # Its own programs are entered; everything else of a test's node lies outside.
    mkdir -p "$root/scripts"
    for program in rabbitmq-server rabbitmqctl; do
        found=$(cd "$root" && ls -d usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin/$program)
        printf '#!/bin/sh\nexec chroot %q /%s "$@"\n' "$root" "$found" >"$root/scripts/$program"
        chmod +x "$root/scripts/$program"
    done
    chroot "$root" apt-get clean
    cp /etc/hosts "$root/etc/hosts"
    echo "${packages[*]}" >"$root/ready"
}
