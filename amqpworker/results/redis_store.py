"""
Results in a Redis or Valkey server, for workers on any number of hosts.

Decides when a result is safe: once the server has answered that it has stored it. Whether that outlives the server depends on how
it is set up (docs/results.md). One that deletes results when its memory is full is refused.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial

from redis.exceptions import ResponseError

from amqpworker.errors import ConfigError, ResultStoreError
from amqpworker.results.redis_address import RedisAddress, address_of
from amqpworker.results.redis_connections import Answer, RedisConnections, exchange
from amqpworker.results.redis_errors import ERRORS, trouble
from amqpworker.results.redis_rows import (
    OTHER_STAYS,
    PUT,
    STORED,
    UNKNOWN_VALUE,
    Keys,
    lifetime,
    not_ours,
    packed,
    row_of,
    value_of,
)
from amqpworker.results.redis_subscription import RedisSubscription
from amqpworker.results.row import ResultRow, merged
from amqpworker.results.store import CHECK_ROW, ResultNotStorable, RowsNotReadable
from amqpworker.text import encodable

LARGEST_VALUE = 512 * 1024 * 1024
"""Bytes: Redis has no larger values (https://redis.io/docs/latest/develop/data-types/strings/)."""

MOST_ROWS = 1000
MOST_BYTES = 1024 * 1024
"""What is sent before answers are read; a larger row is sent alone."""

MOST_KEYS = 500
"""Of one command to read or delete: no other program waits long for the server."""

CHECK_LIFETIME = b"1000"
"""Milliseconds."""


class RedisStore:
    """A `ResultStore` in a Redis or Valkey server."""

    def __init__(self, url: str, namespace: str, largest: int = LARGEST_VALUE) -> None:
        self.address: RedisAddress = address_of(url)
        self._keys = Keys(namespace)
        self._largest = largest
        self._connections = RedisConnections(self.address)
        self._script_hash = _hash(PUT)

    def put(self, rows: Sequence[ResultRow]) -> Mapping[str, ResultStoreError]:
        """Store rows: the server has them when this returns. Return an error for each that it is not known to have."""
        errors: dict[str, ResultStoreError] = {}
        unavailable: BaseException | None = None
        for batch in self._batches(merged(rows), errors):
            if unavailable is None:
                try:
                    errors.update(self._put_batch(batch))
                    continue
                except ERRORS as error:
                    unavailable = error
            errors.update({task_id: self._not_stored(task_id, unavailable) for task_id, _ in batch})
        return errors

    def get(self, ids: Collection[str]) -> Mapping[str, ResultRow]:
        """Return the rows of those ids that have one."""
        rows: dict[str, ResultRow] = {}
        foreign: list[str] = []
        for part in _parts(ids):
            values = self._ask("read from", packed(b"MGET", *map(self._keys.of, part)))
            for task_id, value in zip(part, values, strict=True):
                if value is None:
                    continue
                try:
                    rows[task_id] = row_of(task_id, value)
                except ResultStoreError:
                    foreign.append(task_id)
        if foreign:
            raise RowsNotReadable(not_ours(foreign[0]), foreign, rows)
        return rows

    def subscribe(self) -> RedisSubscription:
        """Return a subscription to changes of rows."""
        return RedisSubscription(self.address, self._keys)

    def delete(self, ids: Collection[str]) -> None:
        """Delete the rows of these ids."""
        try:
            for part in _parts(ids):
                self._ask("deleted from", packed(b"UNLINK", *map(self._keys.of, part)))
        except ConfigError as error:
            raise ResultStoreError(str(error)) from error

    def expire(self, now: float, most: int) -> int:  # noqa: ARG002 - of the contract
        """Return 0: the server deletes rows that have expired by itself."""
        return 0

    def check_writable(self) -> str | None:
        """Store a row that no one reads, and delete it; return why that is not possible at the moment."""
        key = self._keys.check
        value = value_of(CHECK_ROW)
        commands = [
            packed(b"EVAL", PUT, b"1", key, value, CHECK_LIFETIME),
            packed(b"MGET", key),
            packed(b"UNLINK", key),
            packed(b"INFO", b"memory"),
        ]
        try:
            *answers, memory = self._connections.use(partial(exchange, commands=commands))
            for answer in answers:
                if isinstance(answer, ResponseError):
                    raise answer
        except ERRORS as error:
            reason, is_permanent = trouble(error, self.address)
            text = f"Results cannot be stored in {self.address}: {reason}."
            if is_permanent:
                raise ConfigError(text) from error
            return text
        self._check_eviction(memory)
        return None

    def close(self) -> None:
        """Close the connections."""
        self._connections.close()

    def _batches(
        self, rows: Sequence[ResultRow], errors: dict[str, ResultStoreError]
    ) -> Iterator[list[tuple[str, bytes]]]:
        """Yield commands, each with its id, as many as are sent at once. Rows that can never be stored are errors."""
        now = time.time()
        batch: list[tuple[str, bytes]] = []
        size = 0
        for row in rows:
            key, value = self._keys.of(row.id), value_of(row)
            if max(len(key), len(value)) > self._largest:
                errors[row.id] = self._too_large(row.id)
                continue
            if batch and (len(batch) == MOST_ROWS or size + len(key) + len(value) > MOST_BYTES):
                yield batch
                batch, size = [], 0
            # the first one brings the script, so that it is known to the server for the others
            script = (b"EVALSHA", self._script_hash) if batch else (b"EVAL", PUT)
            command = packed(*script, b"1", key, value, b"%d" % lifetime(row.expires_at, now))
            batch.append((row.id, command))
            size += len(command)
        if batch:
            yield batch

    def _put_batch(self, batch: Sequence[tuple[str, bytes]]) -> dict[str, ResultStoreError]:
        commands = [command for _, command in batch]
        try:
            answers = self._connections.use(partial(exchange, commands=commands))
        except ResponseError as error:
            if len(batch) == 1 and "invalid bulk length" in str(error):  # larger than proto-max-bulk-len
                return {batch[0][0]: self._too_large(batch[0][0])}
            raise
        pairs = zip((task_id for task_id, _ in batch), answers, strict=True)
        return {
            task_id: self._refused(task_id, answer) for task_id, answer in pairs if answer not in (STORED, OTHER_STAYS)
        }

    def _refused(self, task_id: str, answer: Answer) -> ResultStoreError:
        if answer == UNKNOWN_VALUE or "WRONGTYPE" in str(answer):
            return ResultNotStorable(f"Results cannot be stored in {self.address}: {not_ours(task_id)}")
        return self._not_stored(task_id, answer)

    def _not_stored(self, task_id: str, error: BaseException) -> ResultStoreError:
        reason = trouble(error, self.address).reason
        failure = ResultStoreError(
            f"The result of task {encodable(task_id)} was not stored in {self.address}: {reason}."
        )
        failure.__cause__ = error
        return failure

    def _too_large(self, task_id: str) -> ResultNotStorable:
        return ResultNotStorable(
            f"The result of task {encodable(task_id)} was not stored in {self.address}: it is larger than a value can be there"
            f" ({self._largest} bytes, or less if proto-max-bulk-len is set)."
        )

    def _ask(self, verb: str, command: bytes) -> Answer:
        """Return the answer to a command that reads or deletes; `verb` is what cannot be done with results if that fails."""
        try:
            (answer,) = self._connections.use(partial(exchange, commands=[command]))
            if isinstance(answer, ResponseError):
                raise answer
        except ERRORS as error:
            reason, is_permanent = trouble(error, self.address)
            kind = ConfigError if is_permanent else ResultStoreError
            raise kind(f"Results cannot be {verb} {self.address}: {reason}.") from error
        return answer

    def _check_eviction(self, memory: Answer) -> None:
        """
        Refuse a server that deletes results when its memory is full (https://redis.io/docs/latest/develop/reference/eviction/).

        `memory` is its answer to INFO, or an error if this user may not ask.
        """
        if isinstance(memory, ResponseError) or self.address.allows_eviction:
            return
        lines = (line.partition(":") for line in memory.decode("utf-8", "replace").splitlines())
        known = {name: value for name, _, value in lines}
        policy = known.get("maxmemory_policy", "noeviction")
        if policy != "noeviction" and known.get("maxmemory", "0") != "0":
            raise ConfigError(
                f"{self.address} deletes results without notice when its memory is full (maxmemory-policy {policy}): set it to"
                " noeviction, use another server, or accept that results vanish with ?allow_eviction=true in the URL."
            )


def _parts(ids: Collection[str]) -> Iterator[list[str]]:
    distinct = list(dict.fromkeys(ids))
    for start in range(0, len(distinct), MOST_KEYS):
        yield distinct[start : start + MOST_KEYS]


def _hash(script: bytes) -> bytes:
    return hashlib.sha1(script, usedforsecurity=False).hexdigest().encode()  # how Redis names a script
