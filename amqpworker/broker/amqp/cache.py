"""
Bounded memories of pure functions, for what is the same in message after message: names, types, routes.

Decides nothing: a value that was forgotten is made again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

__all__ = ["Cache"]

Key = TypeVar("Key")
Value = TypeVar("Value")


class Cache(dict[Key, Value]):
    """
    A dictionary that makes what it lacks, and forgets all of it when it holds `bound` entries.

    A look-up costs half of what `functools.lru_cache` costs, and the codec makes several for each message. Forgetting
    everything is rare where values repeat, and cheap where they never do (a reply address for each call).
    """

    __slots__ = ("bound", "make")

    def __init__(self, make: Callable[[Key], Value], bound: int = 1024) -> None:
        super().__init__()
        self.make = make
        self.bound = bound

    def __missing__(self, key: Key) -> Value:
        value = self.make(key)
        if len(self) >= self.bound:
            self.clear()
        self[key] = value
        return value
