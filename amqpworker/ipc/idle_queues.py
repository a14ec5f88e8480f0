"""
The queues for which a process is idle (it could start a message at once), as bits of one number.

Pure. Two queues may share a bit. Then a process may consider another one idle that does not consume its queue, and
messages are requeued unnecessarily.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

BITS = 1024
IDLE_BYTES = BITS // 8


def bit_of(broker: str, queue: str) -> int:
    """Return the bit of a queue; `broker` includes the virtual host, since another one may have a queue of the same name."""
    digest = hashlib.blake2b(f"{broker}\n{queue}".encode("utf-8", "replace"), digest_size=4).digest()
    return 1 << int.from_bytes(digest, "little") % BITS


def bytes_of(bits: int) -> bytes:
    """Return the bits in the format of the shared memory."""
    return bits.to_bytes(IDLE_BYTES, "little")


def idle_elsewhere(idle: Mapping[int, int]) -> dict[int, int]:
    """Return for each process, by its serial number, the bits that any other process has set."""
    once = twice = 0
    for bits in idle.values():
        twice |= once & bits
        once |= bits
    return {serial: (once & ~bits) | twice for serial, bits in idle.items()}
