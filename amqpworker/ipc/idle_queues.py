"""
Which queues a process could start a message of at once, as bits of one number: one for each queue of a broker.

Pure. Two queues may share a bit, so that a process takes another one for idle that does not consume its queue: then messages
are requeued without need.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

__all__ = ["IDLE_BYTES", "bit_of", "bytes_of", "elsewhere"]

BITS = 1024
IDLE_BYTES = BITS // 8


def bit_of(broker: str, queue: str) -> int:
    """Return the bit of a queue; `broker` names the virtual host, too: a queue of the same name in another has another bit."""
    digest = hashlib.blake2b(f"{broker}\n{queue}".encode("utf-8", "replace"), digest_size=4).digest()
    return 1 << int.from_bytes(digest, "little") % BITS


def bytes_of(bits: int) -> bytes:
    """Return bits as they are written to shared memory."""
    return bits.to_bytes(IDLE_BYTES, "little")


def elsewhere(idle: Mapping[int, int]) -> dict[int, int]:
    """Return for each process, by its serial number, which bits any other process has."""
    once = twice = 0
    for bits in idle.values():
        twice |= once & bits
        once |= bits
    return {serial: (once & ~bits) | twice for serial, bits in idle.items()}
