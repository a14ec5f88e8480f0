"""What the system knows of a socket: what was not sent yet, and what was not read yet."""

from __future__ import annotations

import fcntl
import select
import struct
import termios
from typing import Any

read_count = struct.Struct("i").unpack
COUNT_SIZE = 4


def unsent_bytes(sock: Any, buffered: int) -> int:
    """Return how many bytes were written that the system of the other side has not received yet, with those `buffered` here."""
    if sock is None:
        return 0
    try:
        return buffered + int(read_count(fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(COUNT_SIZE)))[0])
    except OSError:
        return buffered


def has_unread(sock: Any) -> bool:
    """Return whether something has arrived that was not read yet."""
    if sock is None:
        return False
    poller = select.poll()
    poller.register(sock.fileno(), select.POLLIN | select.POLLRDHUP)
    return bool(poller.poll(0))
