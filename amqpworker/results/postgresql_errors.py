"""
What errors of PostgreSQL mean: whose fault they are, and whether they may pass.

Decides by the SQLSTATE, which does not depend on the server's language
(https://www.postgresql.org/docs/current/errcodes-appendix.html). If a connection cannot be opened, there is none: then the
English text decides, and a text that is not known counts as one that may pass.
"""

from __future__ import annotations

import psycopg
from psycopg import errors

from amqpworker.log.redaction import redact_text
from amqpworker.results.postgresql_sql import GRANT, TABLE

CONFLICTS = (errors.DeadlockDetected, errors.SerializationFailure)
"""The transaction was rolled back because of others: it is tried again at once."""

ROW_FAULTS = (
    *(psycopg.DataError, psycopg.IntegrityError, errors.RaiseException, errors.OutOfMemory),
    *(errors.ProgramLimitExceeded, errors.StatementTooComplex, errors.TooManyColumns, errors.TooManyArguments),
)
"""One row may be at fault: the others are stored without it."""

NEVER_STORABLE = (psycopg.DataError, errors.ProgramLimitExceeded)
"""If a row is stored alone: the database can never hold it."""

# classes of SQLSTATEs: authorization, database, schema, and permissions or names in a statement
_PERMANENT_CLASSES = {"28", "3D", "3F", "42"}

# the connection, and an administrator who ends it or shuts down the server
_LOST_CLASSES = {"08", "57"}

_REFUSED = (
    "authentication failed",
    "no password supplied",
    "no pg_hba.conf entry",
    "does not exist",
    "permission denied for database",
    "is not permitted to log in",
    "does not support SSL",
    "invalid connection option",
)


class NoAnswer(psycopg.OperationalError):
    """The server did not answer in time."""


def is_permanent(error: psycopg.Error) -> bool:
    """Return whether an error does not pass by itself: the user, the database, permissions or the schema must change."""
    if error.sqlstate is None:
        return any(known in str(error) for known in _REFUSED)
    return error.sqlstate[:2] in _PERMANENT_CLASSES


def is_stale(error: psycopg.Error) -> bool:
    """Return whether the same may succeed on a new connection: what this one was connected to has changed meanwhile."""
    if isinstance(error, errors.UndefinedTable | errors.ReadOnlySqlTransaction):
        return True  # the table was dropped; the server became a standby
    lost = error.sqlstate is None or error.sqlstate[:2] in _LOST_CLASSES
    return lost and not isinstance(error, NoAnswer | errors.QueryCanceled | psycopg.errors.ConnectionTimeout)


def reason(error: BaseException) -> str:
    """Return in one line why PostgreSQL failed, without what the row contains."""
    if isinstance(error, errors.InsufficientPrivilege) and TABLE in _text_of(error):
        return f"{_text_of(error)} (the owner of the table permits it: {GRANT} …)"
    if isinstance(error, errors.UndefinedTable):
        return f"there is no table {TABLE}"
    return _text_of(error)


def _text_of(error: BaseException) -> str:
    primary = error.diag.message_primary if isinstance(error, psycopg.Error) else None
    text = primary or " ".join(_without_hint(str(error)).split()) or type(error).__name__
    text = text.removeprefix("connection failed: ").removeprefix("connection is bad: ")
    return redact_text(text).removesuffix(".")


def _without_hint(text: str) -> str:
    """Return the text of libpq without its question on a line of its own, such as whether the server is running."""
    return "\n".join(line for line in text.splitlines() if not line.rstrip().endswith("?"))
