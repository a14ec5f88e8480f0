"""Bounded caches of pure functions, for values that repeat in every message: names, types, routes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


class Cache(dict[Key, Value]):
    """
    A dictionary that makes missing values, and is cleared when it holds `bound` entries.

    A lookup costs half as much as in `functools.lru_cache`, and the codec makes several for each message. Clearing is rare if
    values repeat, and cheap if they never do (a reply address for each call).
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
