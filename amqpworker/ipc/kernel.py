"""
Linux system calls that older kernels, some containers and some builds of Python lack, and their replacements.

A supervisor logs at its start which are missing; everything works without them.
"""

from __future__ import annotations

import errno
import os
import select
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress

# The call does not exist, or a container's filter denies it.
MISSING = frozenset({errno.ENOSYS, errno.EPERM})
POLL_INTERVAL = 0.01


def missing_calls() -> dict[str, str]:
    """Return the system calls that are missing here, each with the consequence."""
    missing = {}
    if not _exists(lambda: os.memfd_create("amqpworker-check")):
        missing["memfd_create"] = "temporary files are used instead"
    if not has_process_descriptors():
        missing["pidfd_open"] = (
            "a worker process that hangs may survive a killed supervisor; "
            "the end of an isolated one may be noticed a second later"
        )
    return missing


def has_process_descriptors() -> bool:
    """Return whether the system has descriptors that become readable when a process ends."""
    return _exists(lambda: os.pidfd_open(os.getpid()))


def memory_file(name: str, *, sealable: bool = False) -> int:
    """
    Return the descriptor of an empty file without a path, in memory if the system supports that.

    Raises OSError if the system has no room for another file.
    """

    def in_memory() -> int:
        return os.memfd_create(name, os.MFD_CLOEXEC | (os.MFD_ALLOW_SEALING if sealable else 0))

    if (descriptor := _descriptor_of(in_memory)) >= 0:
        return descriptor
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _descriptor_of(call: Callable[[], int]) -> int:
    """Return the descriptor that a system call returns, -1 if the call is missing."""
    try:
        return call()
    except AttributeError:
        return -1
    except OSError as error:
        if error.errno in MISSING:
            return -1
        raise


def _exists(call: Callable[[], int]) -> bool:
    try:
        descriptor = _descriptor_of(call)
    except OSError:  # no descriptor is free now
        return True
    if descriptor >= 0:
        os.close(descriptor)
    return descriptor >= 0


class ProcessEnd:
    """
    Waits for the end of a child process without reaping it; raises OSError if no descriptor is free.

    `descriptor` becomes readable when the process ends; it is -1 if the system does not support that, and then `wait` has to
    be called.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.descriptor = _descriptor_of(lambda: os.pidfd_open(pid))

    def wait(self, timeout: float = 0.0) -> bool:
        """Wait up to `timeout` seconds, and return whether the process has ended."""
        poll = select.poll()
        if self.descriptor >= 0:
            poll.register(self.descriptor, select.POLLIN)
            return bool(poll.poll(timeout * 1000))
        until = time.monotonic() + timeout
        while not (ended := self._can_be_reaped()) and time.monotonic() < until:
            poll.poll(POLL_INTERVAL * 1000)
        return ended

    def _can_be_reaped(self) -> bool:
        try:
            return os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        except ChildProcessError:  # it was reaped by other code
            return True

    def close(self) -> None:
        """Close the descriptor."""
        if self.descriptor >= 0:
            with suppress(OSError):
                os.close(self.descriptor)
            self.descriptor = -1
