"""
Where results are stored: what a result store promises, and which store a URL names.

A store of another package registers its URL scheme as an entry point of the group `amqpworker.results` (docs/results.md).
What a reply looks like is decided in `model.reply`. Replies to calls are never stored.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias

from amqpworker.errors import ConfigError, ResultStoreError
from amqpworker.log.redaction import redact_url

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

ENTRY_POINTS = "amqpworker.results"


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

SQLITE_EXAMPLE = "sqlite:///results.db"


def check_url(url: str) -> None:
    """
    Check that the URL names a store, without opening it.

    Raises:
        ConfigError: the URL is malformed, or its scheme is unknown.
    """
    open_store(url)


def open_store(url: str) -> ResultStore:
    """
    Create the store that the URL names. It connects at its first use.

    Raises:
        ConfigError: the URL is malformed, its scheme is unknown, or the package of the store cannot be imported.
    """
    scheme, separator, _ = url.partition("://")
    if not separator:
        raise ConfigError(f"results={redact_url(url)!r} is not a URL, such as {SQLITE_EXAMPLE}.")
    if scheme == "sqlite":
        from amqpworker.results.sqlite import sqlite_store

        return sqlite_store(url)
    return _factory(scheme, url)(url)


def _factory(scheme: str, url: str) -> StoreFactory:
    """Return what creates the stores of a scheme that another package has registered."""
    registered = {point.name: point for point in _entry_points()}
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


def _entry_points() -> Iterator[EntryPoint]:
    # slow to import, and needed for stores of other packages only
    from importlib.metadata import entry_points

    yield from entry_points(group=ENTRY_POINTS)
