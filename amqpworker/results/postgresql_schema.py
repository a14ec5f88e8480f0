"""
The schema of results in PostgreSQL: found, created, or refused.

Decides that several processes create it one after the other: all but the first find it. A table that is not ours is never changed.
"""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import errors

from amqpworker.errors import ConfigError
from amqpworker.results.postgresql_errors import reason
from amqpworker.results.postgresql_sql import CREATE, FIND, LOCK, MARK, SCHEMA_VERSION, TABLE

BY_HAND = "run `amqpworker results init` as a user who may, or execute what `amqpworker results show-sql` prints"


def prepare(connection: psycopg.Connection[Any], declare: bool, place: str) -> None:
    """Create the table if there is none and `declare` permits it; raises ConfigError if this code cannot use the database."""
    if _version(connection, place):
        return
    if not declare:
        raise ConfigError(f"{place} has no table {TABLE}, and declare=False keeps it from being created: {BY_HAND}.")
    try:
        with connection.transaction():
            connection.execute(LOCK)
            # not if another process was faster
            if not _version(connection, place):
                connection.execute(CREATE)
    except (errors.InsufficientPrivilege, errors.InvalidSchemaName) as error:
        raise ConfigError(
            f"{place} has no table {TABLE}, and this user may not create it ({reason(error)}): {BY_HAND}."
        ) from error
    except (errors.DuplicateTable, errors.DuplicateObject) as error:
        # what the search path shows to this user is not all that is there
        raise ConfigError(
            f"{place} has a table or type {TABLE} that this user may not see: {reason(error)}."
        ) from error


def _version(connection: psycopg.Connection[Any], place: str) -> int:
    """Return the version of our table, 0 if there is none; raises ConfigError if there is one that this code cannot use."""
    found = connection.execute(FIND).fetchone()
    if found is None:
        return 0
    text = found[0] or ""
    version = text.removeprefix(MARK)
    if not text.startswith(MARK) or not version.isdigit():
        raise ConfigError(
            f"{place} has a table {TABLE} of another program (its comment is not {MARK + str(SCHEMA_VERSION)!r}). Have this user "
            "create tables in a schema of its own: ALTER ROLE … SET search_path = …."
        )
    if int(version) != SCHEMA_VERSION:
        raise ConfigError(
            f"{place} has version {version} of the schema of results, and this amqpworker knows {SCHEMA_VERSION}: use the "
            "amqpworker that created it, or another schema or database."
        )
    return SCHEMA_VERSION
