# Functions to install Debian packages, as root or by sudo without a password; to be sourced.

as_root() {
    if [[ $(id -u) == 0 ]]; then "$@"; else sudo -n "$@"; fi
}

apt() {
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 "$@"
}

# install_packages IS_INSTALLED REFUSE PACKAGE...: IS_INSTALLED is a command that checks, REFUSE one that exits with the reason.
install_packages() {
    local is_installed=$1 refuse=$2 log=.amqpworker/apt.log
    shift 2
    "$is_installed" && return
    command -v apt-get >/dev/null || "$refuse" "there is no apt-get here"
    as_root true 2>/dev/null || "$refuse" "this user cannot install it (not root, no sudo without a password)"
    echo "setup: installing $* with apt-get"
    mkdir -p .amqpworker
    for _ in 1 2 3 4 5; do
        # the second of two clones waits for the lock of the first; the package lists have a lock that apt does not wait for
        { apt update && apt install -y --no-install-recommends "$@"; } >"$log" 2>&1 || sleep 3
        if "$is_installed"; then return; fi
    done
    tail -n 3 "$log" >&2
    "$refuse" "apt-get could not install it ($log)"
}
