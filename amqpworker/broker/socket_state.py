"""What the system knows of a socket: what was not sent yet, and what was not read yet."""

from __future__ import annotations

import fcntl
import select
import struct
import termios
from typing import Any


def unsent_bytes(sock: Any, buffered: int) -> int:
    """Return how many bytes were written that the other host has not acknowledged yet, with those `buffered` here."""
    if sock is None:
        return 0
    try:
        return buffered + int(struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)))[0])
    except OSError:
        return buffered


def has_unread(sock: Any) -> bool:
    """Return whether something has arrived that was not read yet."""
    if sock is None:
        return False
    poller = select.poll()
    poller.register(sock.fileno(), select.POLLIN | select.POLLRDHUP)
    return bool(poller.poll(0))
