"""
Where results are stored: what a result store promises, and which store a URL names.

A store of another package registers its URL scheme as an entry point of the group `amqpworker.results` (docs/results.md).
Replies to calls are never stored.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol, TypeAlias

from amqpworker.errors import ConfigError, ResultStoreError
from amqpworker.log.redaction import redact_url
from amqpworker.results.row import ResultRow

ENTRY_POINTS = "amqpworker.results"
SQLITE_EXAMPLE = "sqlite:///results.db"
POSTGRESQL_SCHEMES = ("postgresql", "postgres")
REDIS_SCHEMES = ("redis", "rediss", "unix", "valkey", "valkeys")

CHECK_ROW = ResultRow("", "", "", b"", "", 0.0, 0.0)
"""What `check_writable` of our stores writes: it has expired, and is removed at once."""


class ResultNotStorable(ResultStoreError):
    """The store can never hold this row: it is too large, for example. Another attempt is useless."""


class RowsNotReadable(ResultStoreError):
    """Some rows cannot be read, for example since a later version wrote them: those of `ids`. `rows` are the others."""

    def __init__(self, text: str, ids: Collection[str] = (), rows: Mapping[str, ResultRow] | None = None) -> None:
        super().__init__(text)
        self.ids = ids
        self.rows = rows or {}


class Subscription(Protocol):
    """
    Hints that rows may have changed. One thread uses it, except `wake`.

    Hints may be missing: a program that waits for a row reads it after `watch`, after each hint, and every `poll_every` seconds.
    """

    @property
    def poll_every(self) -> float:
        """Seconds after which rows are to be read without a hint: at least 1 if hints arrive, less if the store has none."""

    def watch(self, ids: Collection[str]) -> None:
        """From now on, report changes of these rows."""

    def unwatch(self, ids: Collection[str]) -> None:
        """Stop reporting changes of these rows; some may still be reported."""

    def wait(self, timeout: float) -> Collection[str] | None:
        """
        Return the ids of rows that may have changed, an empty collection after `timeout` seconds or `wake`.

        `None` means that any row may have changed. It connects if it is not connected, and returns `None` then, since changes may
        have been missed.

        Raises:
            ResultStoreError: the store cannot be reached at the moment.
            ConfigError: it cannot be opened, and that will not change by itself.
        """

    def wake(self) -> None:
        """End the present `wait`, or the next one; from any thread."""

    def close(self) -> None:
        """Close its connection. It can still be used: it connects again."""


class ResultStore(Protocol):
    """
    Stores the rows of one namespace for any number of threads and processes.

    Creating one opens nothing: it connects at its first use, and again after `close` or a fork.
    """

    def put(self, rows: Sequence[ResultRow]) -> Mapping[str, ResultStoreError]:
        """
        Store rows, and return an error, by id, for each row that is not known to be stored.

        A stored row outlives the process, however that ends. There is one row for each id: of two, `ResultRow.replaces` decides
        which one stays, of those of one batch the last one that counts. A row that can never be stored does not keep the others
        of its batch from being stored. The error is `ResultNotStorable` if another attempt is useless.
        """

    def get(self, ids: Collection[str]) -> Mapping[str, ResultRow]:
        """
        Return the rows of those ids that have one.

        The store may return rows that have expired, or delete them at any time: the caller checks `expires_at`.

        Raises:
            ResultStoreError: the store cannot be read at the moment.
            RowsNotReadable: some of the rows cannot be read; it has the others.
            ConfigError: it cannot be opened, and that will not change by itself.
        """

    def subscribe(self) -> Subscription:
        """Return a subscription to changes of rows, which connects at its first use."""

    def delete(self, ids: Collection[str]) -> None:
        """
        Delete the rows of these ids; ids without a row are ignored.

        Raises:
            ResultStoreError: some are perhaps not deleted.
        """

    def expire(self, now: float, most: int) -> int:
        """
        Delete at most `most` rows whose `expires_at` is not after `now`, and return how many were deleted.

        Workers call this from time to time. Rows of other namespaces may be among them: no app returns what has expired. A store
        that deletes expired rows by itself returns 0.

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


StoreFactory: TypeAlias = Callable[..., ResultStore]
"""
Creates the store of a URL for a namespace; raises `ConfigError` if the URL is malformed.

If it has a parameter `declare`, it is passed whether the store may create its schema (`Settings(declare)`).
"""


def open_store(url: str, namespace: str, declare: bool = True) -> ResultStore:
    """
    Create the store that the URL names, which connects at its first use.

    Without `declare` a database must have its schema already. Raises ConfigError if the URL names no store, or its package is
    missing.
    """
    if not isinstance(url, str):
        raise ConfigError(f"App(results=…): it must be a URL such as {SQLITE_EXAMPLE!r}, got {url!r:.60}.")
    scheme, separator, _ = url.partition("://")
    if not separator:
        raise ConfigError(f"results={redact_url(url)!r} is not a URL, such as {SQLITE_EXAMPLE}.")
    if scheme == "sqlite":
        from amqpworker.results.sqlite import SqliteStore, path_of

        return SqliteStore(path_of(url), namespace)
    if scheme in POSTGRESQL_SCHEMES:
        return _postgresql_store(url, namespace, declare)
    if scheme in REDIS_SCHEMES:
        return _redis_store(url, namespace)
    factory = _registered_factory(scheme, url)
    return factory(url, namespace, declare=declare) if _takes_declare(factory) else factory(url, namespace)


def _postgresql_store(url: str, namespace: str, declare: bool) -> ResultStore:
    try:
        from amqpworker.results.postgresql import PostgresStore
    except ImportError as error:
        raise ConfigError(
            f"results={redact_url(url)!r} needs psycopg: pip install 'amqpworker[postgresql]' ({error})."
        ) from error
    return PostgresStore(url, namespace, declare)


def _redis_store(url: str, namespace: str) -> ResultStore:
    try:
        from amqpworker.results.redis_store import RedisStore
    except ImportError as error:
        raise ConfigError(
            f"results={redact_url(url)!r} needs redis: pip install 'amqpworker[redis]' ({error})."
        ) from error
    return RedisStore(url, namespace)


def _takes_declare(factory: StoreFactory) -> bool:
    from inspect import signature

    try:
        return "declare" in signature(factory).parameters
    except (TypeError, ValueError):  # it is not written in Python
        return False


def _registered_factory(scheme: str, url: str) -> StoreFactory:
    # slow to import, and needed for stores of other packages only
    from importlib.metadata import entry_points

    registered = {point.name: point for point in entry_points(group=ENTRY_POINTS)}
    if scheme not in registered:
        known = ", ".join(sorted({"sqlite", *POSTGRESQL_SCHEMES, *REDIS_SCHEMES, *registered}))
        raise ConfigError(f"results={redact_url(url)!r}: unknown store {scheme!r}. Known stores: {known}.")
    try:
        factory: StoreFactory = registered[scheme].load()
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"results={redact_url(url)!r}: {registered[scheme].value} cannot be imported ({error})."
        ) from error
    return factory
