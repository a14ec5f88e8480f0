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
from contextlib import suppress

# The call does not exist, or a container's filter denies it.
MISSING = frozenset({errno.ENOSYS, errno.EPERM})
POLL_INTERVAL = 0.01

WITHOUT_MEMORY_FILES = "temporary files are used instead"
WITHOUT_PROCESS_DESCRIPTORS = "a worker process that hangs may survive a killed supervisor; the end of an isolated one may be noticed a second later"


def missing_calls() -> dict[str, str]:
    """Return the system calls that are missing here, each with the consequence."""
    missing = {}
    if not _has_memory_files():
        missing["memfd_create"] = WITHOUT_MEMORY_FILES
    if not has_process_descriptors():
        missing["pidfd_open"] = WITHOUT_PROCESS_DESCRIPTORS
    return missing


def _has_memory_files() -> bool:
    """Return whether the system has files in memory."""
    try:
        descriptor = _memory_only("amqpworker-check")
    except OSError:  # no descriptor is free now: the call exists
        return True
    if descriptor >= 0:
        os.close(descriptor)
    return descriptor >= 0


def memory_file(name: str, *, sealable: bool = False) -> int:
    """
    Return the descriptor of an empty file without a path, in memory if the system supports that.

    Raises:
        OSError: the system has no room for another file.
    """
    if (descriptor := _memory_only(name, sealable=sealable)) >= 0:
        return descriptor
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _memory_only(name: str, *, sealable: bool = False) -> int:
    """Return the descriptor of a file in memory, -1 if the system does not support that."""
    try:
        return os.memfd_create(name, os.MFD_CLOEXEC | (os.MFD_ALLOW_SEALING if sealable else 0))
    except AttributeError:
        return -1
    except OSError as error:
        if error.errno in MISSING:
            return -1
        raise


def has_process_descriptors() -> bool:
    """Return whether the system has descriptors that become readable when a process ends."""
    try:
        descriptor = _process_descriptor(os.getpid())
    except OSError:  # no descriptor is free now: the call exists
        return True
    if descriptor >= 0:
        os.close(descriptor)
    return descriptor >= 0


def _process_descriptor(pid: int) -> int:
    """Return a descriptor that becomes readable when a process ends, -1 if the system does not support that."""
    try:
        return os.pidfd_open(pid)
    except AttributeError:
        return -1
    except OSError as error:
        if error.errno in MISSING:
            return -1
        raise


class ProcessEnd:
    """
    Waits for the end of a child process without reaping it.

    `descriptor` becomes readable when the process ends; it is -1 if the system does not support that, and then `wait` has to
    be called.

    Raises:
        OSError: no descriptor is free.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.descriptor = _process_descriptor(pid)

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
