"""
Child processes that outlive their parent, recognised by a mark in their environment.

Every process started here, and what it starts in turn, has `AMQPWORKER_NODE=<mark>`. A process is only signalled after its
environment was read, so that a reused process id never hits another program.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from amqpworker.errors import ConfigError
from amqpworker.testing.waiting import is_true_within

MARK = "AMQPWORKER_NODE"

_KERNEL_OR_EXITING = 0x00200000 | 0x00000004
"""`PF_KTHREAD` and `PF_EXITING` of Linux: processes that have no environment."""

_KILL_WITH_PARENT = f"""
read -r _
[ -z "$1" ] || flock --nonblock --exclusive "$1" true || exit 0
shift
for pid in "$@"; do grep -qzsx "{MARK}=${MARK}" "/proc/$pid/environ" && kill -9 "$pid"; done
"""


def spawn(command: list[str], environment: Mapping[str, str], log: Path, stdin: int | None = None) -> int:
    """
    Start a process in a session of its own and return its id; its output is appended to `log`.

    Because of its session it does not receive a Ctrl-C in our terminal. `subprocess` is not used, since it warns about a process
    that outlives its parent.

    Raises:
        ConfigError: the system cannot start it.
    """
    appending = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    first = (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0) if stdin is None else (os.POSIX_SPAWN_DUP2, stdin, 0)
    actions = [first, (os.POSIX_SPAWN_OPEN, 1, str(log), appending, 0o600), (os.POSIX_SPAWN_DUP2, 1, 2)]
    default = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE]
    try:
        return os.posix_spawn(
            command[0], command, dict(environment), file_actions=actions, setsid=True, setsigmask=[], setsigdef=default
        )
    except OSError as error:
        raise ConfigError(f"{command[0]} cannot be started: {error.strerror}.") from error


def kill_with_parent(environment: Mapping[str, str], log: Path, pids: Iterable[int], users: Path | None = None) -> int:
    """
    Have `pids` killed when this process ends, however it ends; but not while another process has locked the file `users`.

    Returns a file descriptor; they are killed when it is closed.
    """
    read_end, write_end = os.pipe()
    try:
        arguments = ["kill_with_parent", "" if users is None else str(users), *map(str, pids)]
        spawn(["/bin/sh", "-c", _KILL_WITH_PARENT, *arguments], environment, log, stdin=read_end)
    except BaseException:
        os.close(write_end)
        raise
    finally:
        os.close(read_end)
    return write_end


def is_ours(pid: int, mark: str) -> bool:
    """Return whether the process is alive and has the mark; a zombie is not alive."""
    return f"{MARK}={mark}".encode() in _environment(pid).split(b"\0")


def _environment(pid: int) -> bytes:
    """
    Read a process's environment; empty if it has ended or belongs to another user.

    During an `exec` it is empty for a moment, so an empty one is read again.
    """
    try:
        for _ in range(20):
            content = Path(f"/proc/{pid}/environ").read_bytes()
            if content:
                return content
            # man proc_pid_stat: the fields after the name, of which state is the third of all and flags the ninth
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            if fields[0] in "ZX" or int(fields[6]) & _KERNEL_OR_EXITING:
                break
            time.sleep(0.001)
    except OSError:
        pass
    return b""


def marked(mark: str) -> list[int]:
    """Find all processes that have the mark."""
    pids = (int(entry) for entry in os.listdir("/proc") if entry.isdigit())
    return [pid for pid in pids if pid != os.getpid() and is_ours(pid, mark)]


def send_signal(pid: int, mark: str, number: signal.Signals) -> None:
    """Signal the process if it has the mark."""
    if is_ours(pid, mark):
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def gone(pid: int, mark: str) -> bool:
    """Return whether the process has ended; reaps a child of ours."""
    if pid <= 0:
        return True
    if is_ours(pid, mark):
        return False
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return True


def end_all(mark: str, timeout: float = 10.0) -> bool:
    """Kill every process that has the mark, and wait for their end; return false if the timeout is over first."""
    seen: set[int] = set()

    def none_left() -> bool:
        living = marked(mark)
        for pid in living:
            send_signal(pid, mark, signal.SIGKILL)
        seen.update(living)
        seen.difference_update([pid for pid in seen if gone(pid, mark)])
        return not seen

    return is_true_within(timeout, none_left)


def is_free(port: int) -> bool:
    """Return whether a server could listen on this loopback port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the broker does: old connections do not count
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def free_ports(count: int) -> list[int]:
    """
    Choose free loopback ports.

    They are below the range of the kernel's ephemeral ports: a client that retries while the node restarts could otherwise be
    given the node's own port, and connect to itself.
    """
    chosen: list[int] = []
    while len(chosen) < count:
        port = random.randint(10_000, 32_000)  # noqa: S311
        if port not in chosen and is_free(port):
            chosen.append(port)
    return chosen
