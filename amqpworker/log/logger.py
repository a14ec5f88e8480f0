"""
The loggers of this package. Each of their lines has the task, id, attempt and queue of the run that wrote it, and no password.

They pass records to the standard library's `logging`, so that the handlers of a service that publishes show them. structlog's
loggers are not used: its import takes 100 ms and 6 to 13 MiB, in the supervisor and in each service that publishes, and a line
below the log level takes 1.6 µs instead of 0.2 µs (structlog 26.1, Python 3.11).
"""

from __future__ import annotations

import atexit
import logging
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from amqpworker.errors import TimeLimitExceeded
from amqpworker.lifecycle import in_io_thread
from amqpworker.log.log_queue import LogQueue, report_failure
from amqpworker.log.record import LogLine, make_record
from amqpworker.log.redaction import redact_value

task_context: ContextVar[object | None] = ContextVar("amqpworker_task", default=None)
"""What runs in this context: an object with the attributes `task`, `id`, `attempt` and `queue`."""

TASK_FIELDS = ("task", "id", "attempt", "queue")


class Logger:
    """A logger that does nothing for a line below the log level."""

    __slots__ = ("_logger", "wants")

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self.wants: Callable[[int], bool] = logger.isEnabledFor
        """Returns whether a line of this level would be written, for lines whose fields cost something."""

    def debug(self, event: str, **fields: Any) -> None:
        """Log what helps to follow the program step by step."""
        self._write(logging.DEBUG, event, fields)

    def info(self, event: str, **fields: Any) -> None:
        """Log what an operator wants to know."""
        self._write(logging.INFO, event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        """Log what an operator should check."""
        self._write(logging.WARNING, event, fields)

    def error(self, event: str, **fields: Any) -> None:
        """Log a failure."""
        self._write(logging.ERROR, event, fields)

    def critical(self, event: str, **fields: Any) -> None:
        """Log why this program ends."""
        self._write(logging.CRITICAL, event, fields)

    def _write(self, level: int, event: str, fields: dict[str, Any]) -> None:
        if not self.wants(level):
            return
        error = fields.pop("exc_info", None)
        known = {name: value for name, value in fields.items() if value is not None}
        line = LogLine(redact_value(add_task({"event": event, **known})))
        try:
            record = make_record(self._logger, level, line, error, callers=3)
            if in_io_thread():
                QUEUE.put(record)
            else:
                self._logger.handle(record)
        except TimeLimitExceeded:
            raise  # of the task that writes this line
        except Exception:  # noqa: BLE001 - a filter of the service: no thread of ours may end because of a line
            report_failure()


QUEUE = LogQueue()
"""The lines of all I/O threads of this process."""

FLUSH_TIMEOUT = 5.0


def flush(timeout: float = FLUSH_TIMEOUT) -> None:
    """Return once the lines of all I/O threads are written; for a process that ends without Python's own exit."""
    QUEUE.flush(timeout)


atexit.register(flush)


def get_logger(name: str) -> Logger:
    """Return a logger; it follows `configure` at any time."""
    logger = logging.getLogger(name)
    if isinstance(logging.getLogger("amqpworker"), AlwaysEnabledLogger):
        logger.__class__ = AlwaysEnabledLogger
    return Logger(logger)


class AlwaysEnabledLogger(logging.Logger):
    """A logger that `logging.config` cannot disable: by default it disables all loggers that it does not name."""

    disabled = property(lambda _: False, lambda *_: None)


def keep_enabled() -> None:
    """Keep our loggers enabled from now on, whatever user code does, those that are made later included."""
    for name in ("amqpworker", *logging.root.manager.loggerDict):
        if name.partition(".")[0] == "amqpworker":
            logging.getLogger(name).__class__ = AlwaysEnabledLogger


def silence_on_our_connections(library: str) -> None:
    """
    Drop what a library logs about our own connections, unless its debug lines are wanted.

    pika logs a lost connection in up to five lines with tracebacks, in each service that publishes; our own line reports
    the same once. Lines of a service that uses pika itself are left alone.
    """
    for name in list(logging.root.manager.loggerDict):
        if name.split(".")[0] == library:
            logger = logging.getLogger(name)
            if not any(isinstance(known, SilenceOnOurConnections) for known in logger.filters):
                logger.addFilter(SilenceOnOurConnections())


on_own_connection: ContextVar[bool] = ContextVar("amqpworker_own_connection", default=False)
"""Whether this context is that of a connection of ours in an event loop."""


class SilenceOnOurConnections(logging.Filter):
    """Drops the lines of I/O threads and of our connections in event loops; if debug lines are wanted, another thread writes them."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether to write the record here."""
        if not (in_io_thread() or on_own_connection.get()):
            return True
        if logging.getLogger(record.name).isEnabledFor(logging.DEBUG):
            record.msg, record.args = record.getMessage(), ()
            QUEUE.put(record)
        return False


def add_task(event: dict[str, Any]) -> dict[str, Any]:
    """Add which run of which task writes the line; called only for lines that are written."""
    running = task_context.get()
    if running is not None:
        for name in TASK_FIELDS:
            event.setdefault(name, getattr(running, name, None))
    return event
