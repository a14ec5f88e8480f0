"""
Where results are stored: what a result store promises, which store a URL names, and when rows expire.

A store of another package registers its URL scheme as an entry point of the group `amqpworker.results` (docs/results.md).
Replies to calls are never stored.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple, Protocol, TypeAlias

from amqpworker.errors import ConfigError, ResultStoreError
from amqpworker.log.redaction import redact_url

ENTRY_POINTS = "amqpworker.results"
SQLITE_EXAMPLE = "sqlite:///results.db"

EXPIRE_EVERY = 64
"""After this many results, at most twice as many expired ones are deleted: the store shrinks, and no deletion is long."""


class ResultNotStorable(ResultStoreError):
    """The store can never hold this row: it is too large, for example. Another attempt is useless."""


class ResultRow(NamedTuple):
    """
    What a store keeps of one message: its task `id` and `first_sent` identify it, since an id may be used again.

    `state` is `done` or `failed`. The set is open: code that reads rows must accept states that it does not know. `reply` is
    the JSON of the wire contract, empty if the task has not ended. `first_sent` is the text of the header `aw-first-sent`,
    empty if the message has none; such texts sort by time. `stored_at` and `expires_at` are seconds since the epoch.
    """

    id: str
    state: str
    task: str
    reply: bytes
    first_sent: str
    stored_at: float
    expires_at: float


class ResultStore(Protocol):
    """
    Stores rows for any number of threads and processes.

    Creating one opens nothing: it connects at its first use, and again after `close` or a fork.
    """

    def put(self, rows: Sequence[ResultRow]) -> Mapping[str, ResultStoreError]:
        """
        Store rows, and return an error for the id of each row that may not be stored.

        A stored row outlives the process, however that ends. It replaces the row of the same message, and never that of
        a message with the same id that was sent later. The error is `ResultNotStorable` if another attempt is useless.
        """

    def get(self, ids: Collection[str]) -> Mapping[str, ResultRow]:
        """
        Return the rows of those ids that have one; if an id was used again, the row of the message that was sent last.

        The store may return rows that have expired, or delete them at any time: the caller checks `expires_at`.

        Raises:
            ResultStoreError: the store cannot be read at the moment.
            ConfigError: it cannot be opened, and that will not change by itself.
        """

    def delete(self, ids: Collection[str]) -> None:
        """
        Delete all rows of these ids; ids without a row are ignored.

        Raises:
            ResultStoreError: some may not be deleted.
        """

    def expire(self, now: float, most: int) -> int:
        """
        Delete at most `most` rows whose `expires_at` is not after `now`, and return how many were deleted.

        Workers call this from time to time. A store that deletes expired rows by itself returns 0.

        Raises:
            ResultStoreError: nothing could be deleted.
        """

    def check_writable(self) -> str | None:
        """
        Check that this process can store rows. Return a reason if it cannot at the moment: the store is busy, full or away.

        Raises:
            ConfigError: it cannot, and that will not change by itself.
        """

    def close(self) -> None:
        """Close files and connections. The store can still be used: it opens them again."""


StoreFactory: TypeAlias = Callable[[str], ResultStore]
"""Creates the store of a URL; raises `ConfigError` if the URL is malformed."""


def open_store(url: str) -> ResultStore:
    """Create the store that the URL names, which connects at its first use; raises ConfigError if it names none."""
    scheme, separator, _ = url.partition("://")
    if not separator:
        raise ConfigError(f"results={redact_url(url)!r} is not a URL, such as {SQLITE_EXAMPLE}.")
    if scheme == "sqlite":
        from amqpworker.results.sqlite import SqliteStore, path_of

        return SqliteStore(path_of(url))
    return _factory(scheme, url)(url)


def _factory(scheme: str, url: str) -> StoreFactory:
    # slow to import, and needed for stores of other packages only
    from importlib.metadata import entry_points

    registered = {point.name: point for point in entry_points(group=ENTRY_POINTS)}
    if scheme not in registered:
        known = ", ".join(sorted({"sqlite", *registered}))
        raise ConfigError(f"results={redact_url(url)!r}: unknown store {scheme!r}. Known stores: {known}.")
    try:
        factory: StoreFactory = registered[scheme].load()
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"results={redact_url(url)!r}: {registered[scheme].value} cannot be imported ({error})."
        ) from error
    return factory


class ResultWriter:
    """Puts rows with the times of one clock, and deletes those that have expired."""

    def __init__(self, store: ResultStore, ttl: float, now: Callable[[], float] = time.time) -> None:
        self._store = store
        self._ttl = ttl
        self._now = now
        self._until_expire = 1

    def write(self, task_id: str, state: str, task: str, reply: bytes, first_sent: str) -> ResultStoreError | None:
        """Store a result; return why it may not be stored."""
        now = self._now()
        row = ResultRow(task_id, state, task, reply, first_sent, now, now + self._ttl)
        error = self._store.put((row,)).get(task_id)
        self._until_expire -= 1
        if error is None and self._until_expire <= 0:
            self._until_expire = EXPIRE_EVERY
            with suppress(ResultStoreError):  # the next time will do
                self._store.expire(now, 2 * EXPIRE_EVERY)
        return error

    def write_unless_there(
        self, task_id: str, state: str, task: str, reply: bytes, first_sent: str
    ) -> ResultStoreError | None:
        """As `write`, but a result of the same message that is stored already stays."""
        try:
            row = self._store.get((task_id,)).get(task_id)
        except ResultStoreError as error:
            return error
        except ConfigError as error:
            return ResultStoreError(str(error))
        if row is not None and row.reply and row.first_sent == first_sent and row.expires_at > self._now():
            return None
        return self.write(task_id, state, task, reply, first_sent)
