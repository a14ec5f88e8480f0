"""
Where answers and results go: one contract, several stores.

Decides which store a URL means. What a stored result looks like stands in `answer`, how a store keeps it in a module
of its own, and answers to calls, which are never stored, in `calls`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol, TypeAlias

from amqpworker.errors import ConfigError, ResultStoreError
from amqpworker.log.redaction import redact_url

__all__ = ["Clock", "ResultNotStorable", "ResultStore", "check_url", "open_store"]

Clock: TypeAlias = Callable[[], float]
"""What tells the time, in seconds since the epoch."""

EXAMPLES = {"sqlite": "sqlite:///results.db"}


class ResultNotStorable(ResultStoreError):
    """A store can never hold this result, as one that is longer than its longest; nobody need try again."""


class ResultStore(Protocol):
    """
    Keeps one result per message, for any number of threads and processes.

    A message is known by its task id and by `first_sent`, the text of its `aw-first-sent`: an id may be used again.
    """

    def store(self, task_id: str, result: bytes, expires_at: float, first_sent: str = "") -> None:
        """
        Keep `result` until `expires_at` (seconds since the epoch), in place of an earlier one of the same message.

        When this returns, the result outlives the end of this process, however it ends. `first_sent` is "" where the
        message does not tell it.

        Raises:
            ResultNotStorable: the store will never take this result, however often it is asked.
            ResultStoreError: it was not stored, or it is not known whether it was.
        """

    def check_writable(self) -> str | None:
        """
        Make sure that results can be stored by this user; return why not now, if the store is busy, full or away.

        Raises:
            ConfigError: they cannot, and that will not end by itself.
        """

    def fetch(self, task_id: str, first_sent: str | None = None) -> bytes | None:
        """
        Return the result of a message, `None` where there is nothing or it has expired.

        One of a message that does not tell when it was sent first is taken too. Without `first_sent` it is what was
        stored last under this id.

        Raises:
            ResultStoreError: the store cannot be read.
        """

    def close(self) -> None:
        """Let go of files and connections; a later use opens them anew, as a thread may ask for a result even now."""


def check_url(url: str) -> None:
    """
    Make sure that a store can be opened by this URL, without opening anything.

    Raises:
        ConfigError: the URL is malformed, or there is no such store.
    """
    scheme, separator, _ = url.partition("://")
    if not separator:
        raise ConfigError(f"results={redact_url(url)!r} is not a URL; one that works: {EXAMPLES['sqlite']}")
    if scheme not in EXAMPLES:
        known = ", ".join(f"{name} ({example})" for name, example in EXAMPLES.items())
        raise ConfigError(f"results={redact_url(url)!r}: there is no store named {scheme!r}; there are: {known}.")
    from amqpworker.results.sqlite import path_of

    path_of(url)


def open_store(url: str | None, clock: Clock = time.time) -> ResultStore | None:
    """
    Open the store that the URL names; `None` means that nothing is stored.

    Raises:
        ConfigError: the URL is malformed, there is no such store, or it cannot be opened.
    """
    if url is None:
        return None
    check_url(url)
    from amqpworker.results.sqlite import SqliteStore, path_of

    return SqliteStore(path_of(url), clock)
