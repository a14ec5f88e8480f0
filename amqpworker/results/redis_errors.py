"""What went wrong at a Redis or Valkey server, in words that name what to do, and whether it may pass by itself."""

from __future__ import annotations

import socket
import ssl
from typing import NamedTuple

from redis import exceptions

from amqpworker.log.redaction import redact_text
from amqpworker.results.redis_address import RedisAddress

ERRORS = (exceptions.RedisError, OSError)
"""What redis-py raises."""


class Trouble(NamedTuple):
    """Why the server failed, in a few words; it `is_permanent` if it does not pass until the set-up is changed."""

    reason: str
    is_permanent: bool = False


_NO_PASSWORD_EXPECTED = Trouble("it asks for no password, and the URL has one", True)
_NO_SUCH_DATABASE = Trouble("it has no database of this number (its setting `databases` limits them)", True)
_IN_A_CLUSTER = Trouble("it is a node of a cluster, which is not supported: use a server of its own", True)

_BY_CLASS: tuple[tuple[type[BaseException], Trouble], ...] = (
    (exceptions.OutOfMemoryError, Trouble("its memory is full: raise maxmemory, or keep results for a shorter time")),
    (exceptions.ReadOnlyError, Trouble("it is a replica, which stores nothing: name the primary in the URL")),
    (exceptions.BusyLoadingError, Trouble("it is loading its data")),
    (exceptions.NoScriptError, Trouble("its scripts were deleted meanwhile")),
    (exceptions.MovedError, _IN_A_CLUSTER),
    (exceptions.ClusterDownError, _IN_A_CLUSTER),
    (exceptions.InvalidResponse, Trouble("it does not answer as Redis does: check host and port", True)),
    (ssl.SSLError, Trouble("the TLS connection failed: rediss:// needs a port that uses TLS", True)),
    (socket.gaierror, Trouble("its host name cannot be resolved")),
    (ConnectionRefusedError, Trouble("the connection was refused")),
)

# the beginning of what the server answers
_BY_TEXT = {
    "AUTH ": _NO_PASSWORD_EXPECTED,
    "BUSY": Trouble("a script of another program keeps it busy"),
    "DB index": _NO_SUCH_DATABASE,
    "Client sent AUTH": _NO_PASSWORD_EXPECTED,
    "MISCONF": Trouble(
        "it cannot write its data to its disk (MISCONF) and refuses to store: see its log, and its disk"
    ),
    "NOREPLICAS": Trouble("too few of its replicas are connected (min-replicas-to-write)"),
    "Server closed the connection": Trouble("it closed the connection"),
    "invalid DB index": _NO_SUCH_DATABASE,
    "max number of clients": Trouble("it has as many clients as it accepts (maxclients)"),
    "unknown command": Trouble("it does not have a command that is needed: Redis 6.2 or Valkey 7.2, or later", True),
}

# as Redis 6 writes it, and as Redis 7 and Valkey do
_DENIED_IN_SCRIPT = ("user executing the script", "ACL failure in script")


def trouble(error: BaseException, address: RedisAddress) -> Trouble:
    """Return why the server could not do what was asked."""
    # redis-py puts errors of the socket into words of its own
    cause = error.__context__ if isinstance(error.__context__, OSError) else error
    special = _special(cause, address) if isinstance(cause, OSError) else _of_answer(error, address)
    if special is not None:
        return special
    for one in (cause, error):
        for kind, known in _BY_CLASS:
            if isinstance(one, kind):
                return known
    text = str(error).removeprefix("ERR ")
    for beginning, known in _BY_TEXT.items():
        if text.startswith(beginning):
            return known
    return Trouble(redact_text(text).strip().removesuffix(".") or type(error).__name__)


def _of_answer(error: BaseException, address: RedisAddress) -> Trouble | None:
    if isinstance(error, exceptions.TimeoutError):
        return _silent(address)
    if isinstance(error, exceptions.NoPermissionError) or any(text in str(error) for text in _DENIED_IN_SCRIPT):
        return Trouble(f"its user may not do what is needed ({_permission(error)}): see its ACL", True)
    if isinstance(error, exceptions.AuthenticationError | exceptions.AuthorizationError):
        if "without any password" in str(error) or "no password is set" in str(error):
            return _NO_PASSWORD_EXPECTED
        return Trouble("user or password is wrong, or missing in the URL", True)
    return None


def _silent(address: RedisAddress) -> Trouble:
    # a server waits for more of what it takes for a command
    hint = " (if its port does not use TLS, write redis://)" if address.tls else ""
    return Trouble(f"it did not answer in time{hint}")


def _permission(error: BaseException) -> str:
    # Redis adds where in the script it was
    return str(error).removeprefix("NOPERM ").removeprefix("ERR ").partition(" script: ")[0].strip().removesuffix(".")


def _special(error: OSError, address: RedisAddress) -> Trouble | None:
    if isinstance(error, ssl.SSLCertVerificationError):
        return Trouble(f"its certificate is not accepted: {error.verify_message}".removesuffix("."), True)
    if isinstance(error, TimeoutError):
        return _silent(address)
    if isinstance(error, FileNotFoundError):
        if address.path is None:
            return Trouble("a file that the URL names does not exist", True)
        return Trouble("the socket does not exist; the server may not be running")
    if isinstance(error, PermissionError):
        return Trouble("this user may not open the socket, or a file that the URL names", True)
    return None
