"""
The loggers that this package writes with, and what each of their lines tells: task, id, attempt, queue, no password.

Loggers pass everything to the standard library's `logging`: in a service that publishes, its own handlers show our
lines. What a line looks like in programs of ours is left to `logform`.
"""

from __future__ import annotations

import contextlib
import logging
import traceback
from contextvars import ContextVar
from typing import Any

from amqpworker.redaction import redact_value

__all__ = ["Line", "Logger", "add_task", "fields_of", "get_logger", "hush", "record_of", "redact", "task_context"]

task_context: ContextVar[object | None] = ContextVar("amqpworker_task", default=None)
"""What runs in this context: something with the attributes `task`, `id`, `attempt` and `queue`."""

TASK_FIELDS = ("task", "id", "attempt", "queue")


class Line(dict[str, Any]):
    """The fields of one line, which any formatter of the standard library shows as text."""

    def __str__(self) -> str:
        fields = " ".join(f"{name}={_shown(value)}" for name, value in self.items() if name != "event")
        return f"{self.get('event', '')} {fields}".rstrip()


class Logger:
    """A logger that asks `logging` whether a line is wanted before it does anything for it."""

    __slots__ = ("_logger",)

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger

    def wants_debug(self) -> bool:
        """Tell whether a debug line would be written, where making its fields costs something."""
        return self._logger.isEnabledFor(logging.DEBUG)

    def debug(self, event: str, **fields: Any) -> None:
        """Log what helps to follow the program step by step."""
        self._write(logging.DEBUG, event, fields)

    def info(self, event: str, **fields: Any) -> None:
        """Log what an operator wants to know."""
        self._write(logging.INFO, event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        """Log what an operator should look at."""
        self._write(logging.WARNING, event, fields)

    def error(self, event: str, **fields: Any) -> None:
        """Log what went wrong."""
        self._write(logging.ERROR, event, fields)

    def _write(self, level: int, event: str, fields: dict[str, Any]) -> None:
        if not self._logger.isEnabledFor(level):
            return
        known = {name: value for name, value in fields.items() if value is not None}
        line, keywords = record_of(self._logger, redact(add_task({"event": event, **known})))
        try:
            self._logger.log(level, line, stacklevel=3, **keywords)
        except Exception:  # noqa: BLE001 - a filter of the service: no thread of ours may end for a line
            # As `logging.Handler.handleError` does, which is not asked about filters.
            if logging.raiseExceptions:
                with contextlib.suppress(Exception):
                    traceback.print_exc()


def get_logger(name: str) -> Logger:
    """Return a logger that costs next to nothing until it writes a line; it follows `logform.configure` at any time."""
    return Logger(logging.getLogger(name))


def hush(library: str, threads: str) -> None:
    """
    Drop what a library logs in threads whose names begin with `threads`, unless its debug lines are wanted.

    pika tells a lost connection in up to five lines with tracebacks, in every service that publishes, where our own
    line says the same once. What a service does with pika itself is left alone.
    """
    for name in list(logging.root.manager.loggerDict):
        if name.split(".")[0] == library:
            logger = logging.getLogger(name)
            if not any(isinstance(one, Hush) for one in logger.filters):
                logger.addFilter(Hush(threads))


class Hush(logging.Filter):
    """Lets nothing through that is said in certain threads."""

    def __init__(self, threads: str) -> None:
        super().__init__()
        self._threads = threads

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether a record is written."""
        ours = (record.threadName or "").startswith(self._threads)
        return not ours or logging.getLogger(record.name).isEnabledFor(logging.DEBUG)


def add_task(event: dict[str, Any]) -> dict[str, Any]:
    """Tell which run of which task the line comes from; asked only for lines that are written."""
    running = task_context.get()
    if running is not None:
        for name in TASK_FIELDS:
            event.setdefault(name, getattr(running, name, None))
    return event


def redact(event: dict[str, Any]) -> dict[str, Any]:
    """Hide the passwords in all URLs of a line, however deep they stand in its values."""
    for name, value in event.items():
        kind = type(value)
        if kind is not int and kind is not float and name not in _META:
            event[name] = redact_value(value)
    return event


_META = ("exc_info", "stack_info")


def record_of(logger: object, event: dict[str, Any]) -> tuple[Line, dict[str, Any]]:
    """Return the line and the keywords of which `logging` makes a record that structlog's formatter takes as its own."""
    keywords = {name: event.pop(name) for name in ("exc_info", "stack_info") if event.get(name) is not None}
    return Line(event), {"extra": {"_logger": logger, "_name": ""}, **keywords}


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """Return the fields of a record: of one by `record_of` or by structlog, or the message of any other, with its task."""
    if isinstance(record.msg, dict) and hasattr(record, "_logger"):
        return dict(record.msg)
    return add_task({"event": record.getMessage()})


def _shown(value: object) -> str:
    return value if isinstance(value, str) and value.isprintable() and " " not in value else repr(value)
