"""
System calls of Linux that older kernels, some containers and some builds of Python do not have, and what replaces them.

Decides nothing: a supervisor reports at its start what is missing, and everything works without it.
"""

from __future__ import annotations

import errno
import os
import select
import tempfile
import time
from contextlib import suppress

__all__ = ["ProcessEnd", "has_process_descriptors", "memory_file", "missing_calls"]

# No such call, or a filter of a container refuses it.
MISSING = frozenset({errno.ENOSYS, errno.EPERM})
STEP = 0.01

WITHOUT_MEMORY_FILES = "temporary files are used instead"
WITHOUT_PROCESS_DESCRIPTORS = "a worker process that hangs may survive a killed supervisor; the end of an isolated one may be noticed a second later"


def missing_calls() -> dict[str, str]:
    """Return the system calls that are missing here, each with what follows from that."""
    missing = {}
    if not has_memory_files():
        missing["memfd_create"] = WITHOUT_MEMORY_FILES
    if not has_process_descriptors():
        missing["pidfd_open"] = WITHOUT_PROCESS_DESCRIPTORS
    return missing


def has_memory_files() -> bool:
    """Return whether there are files in memory."""
    try:
        descriptor = memory_only("amqpworker-check")
    except OSError:  # none is free now, which is another matter
        return True
    if descriptor >= 0:
        os.close(descriptor)
    return descriptor >= 0


def memory_file(name: str, *, sealable: bool = False) -> int:
    """
    Return the descriptor of an empty file without a path, in memory if the system can do that.

    Raises:
        OSError: there is no room for another one.
    """
    if (descriptor := memory_only(name, sealable=sealable)) >= 0:
        return descriptor
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def memory_only(name: str, *, sealable: bool = False) -> int:
    """Return the descriptor of a file in memory, -1 if the system has no such thing."""
    try:
        return os.memfd_create(name, os.MFD_CLOEXEC | (os.MFD_ALLOW_SEALING if sealable else 0))
    except AttributeError:
        return -1
    except OSError as error:
        if error.errno in MISSING:
            return -1
        raise


def has_process_descriptors() -> bool:
    """Return whether there are descriptors that become readable with the end of a process."""
    try:
        descriptor = process_descriptor(os.getpid())
    except OSError:  # none is free now, which is another matter
        return True
    if descriptor >= 0:
        os.close(descriptor)
    return descriptor >= 0


def process_descriptor(pid: int) -> int:
    """Return a descriptor that becomes readable with the end of a process, -1 if the system has no such thing."""
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
    The end of a child process, which can be waited for and is not reaped by that.

    `descriptor` becomes readable with it, and is -1 if the system has no such thing: then `has_come` has to be asked.

    Raises:
        OSError: there is no room for another descriptor.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.descriptor = process_descriptor(pid)

    def has_come(self, timeout: float = 0.0) -> bool:
        """Wait for the end for up to `timeout` seconds, and return whether it has come."""
        poll = select.poll()
        if self.descriptor >= 0:
            poll.register(self.descriptor, select.POLLIN)
            return bool(poll.poll(timeout * 1000))
        until = time.monotonic() + timeout
        while not (ended := self._can_be_reaped()) and time.monotonic() < until:
            poll.poll(STEP * 1000)
        return ended

    def _can_be_reaped(self) -> bool:
        try:
            return os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        except ChildProcessError:  # others have waited for it
            return True

    def close(self) -> None:
        """Let go of the descriptor."""
        if self.descriptor >= 0:
            with suppress(OSError):
                os.close(self.descriptor)
            self.descriptor = -1
