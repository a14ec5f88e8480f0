"""
The loggers that this package writes with, and what each of their lines tells: task, id, attempt, queue, no password.

Loggers pass everything to the standard library's `logging`: in a service that publishes, its own handlers show our
lines. What a line looks like in programs of ours is left to `format`, and the way of lines from threads that must not
wait to `queue_handler`.
"""

from __future__ import annotations

import atexit
import logging
from contextvars import ContextVar
from typing import Any

from amqpworker.errors import TimeLimitExceeded
from amqpworker.lifecycle import in_io_thread
from amqpworker.log.queue_handler import LogQueue, report_failure
from amqpworker.log.redaction import redact_value

__all__ = [
    "LogLine",
    "Logger",
    "add_task",
    "fields_of",
    "flush",
    "get_logger",
    "hush",
    "keep_enabled",
    "record_of",
    "redact",
    "task_context",
]

task_context: ContextVar[object | None] = ContextVar("amqpworker_task", default=None)
"""What runs in this context: something with the attributes `task`, `id`, `attempt` and `queue`."""

TASK_FIELDS = ("task", "id", "attempt", "queue")


class LogLine(dict[str, Any]):
    """The fields of one line, which any formatter of the standard library shows as text."""

    def __str__(self) -> str:
        fields = " ".join(f"{name}={_shown(value)}" for name, value in self.items() if name != "event")
        return f"{self.get('event', '')} {fields}".rstrip()


class Logger:
    """A logger that asks `logging` whether a line is wanted before it does anything for it."""

    __slots__ = ("_logger",)

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger

    def wants(self, level: int) -> bool:
        """Return whether a line of this level would be written, for lines whose fields cost something."""
        return self._logger.isEnabledFor(level)

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

    def critical(self, event: str, **fields: Any) -> None:
        """Log why this program ends."""
        self._write(logging.CRITICAL, event, fields)

    def _write(self, level: int, event: str, fields: dict[str, Any]) -> None:
        if not self._logger.isEnabledFor(level):
            return
        known = {name: value for name, value in fields.items() if value is not None}
        line, keywords = record_of(self._logger, redact(add_task({"event": event, **known})))
        try:
            if in_io_thread():
                QUEUE.put(made(self._logger, level, line, keywords))
            else:
                self._logger.log(level, line, stacklevel=3, **keywords)
        except TimeLimitExceeded:
            raise  # of the task that writes this line
        except Exception:  # noqa: BLE001 - a filter of the service: no thread of ours may end for a line
            report_failure()


QUEUE = LogQueue()
"""The lines of all threads of this process that keep a connection."""

FLUSH_SECONDS = 5.0


def flush(timeout: float = FLUSH_SECONDS) -> None:
    """Return once the lines of all threads are written; before a process ends that does not end as others do."""
    QUEUE.flush(timeout)


atexit.register(flush)


def made(logger: logging.Logger, level: int, line: LogLine, keywords: dict[str, Any]) -> logging.LogRecord:
    """Return the record that `logger.log` would hand to its handlers."""
    # The caller of `Logger.info` and the like.
    path, number, function, stack = logger.findCaller(bool(keywords.get("stack_info")), stacklevel=4)
    error = keywords.get("exc_info")
    told = (type(error), error, error.__traceback__) if isinstance(error, BaseException) else None
    return logger.makeRecord(
        logger.name, level, path, number, line, (), told, function, extra=keywords["extra"], sinfo=stack
    )


def get_logger(name: str) -> Logger:
    """Return a logger that costs next to nothing until it writes a line; it follows `logform.configure` at any time."""
    logger = logging.getLogger(name)
    if isinstance(logging.getLogger("amqpworker"), KeptLogger):
        logger.__class__ = KeptLogger
    return Logger(logger)


class KeptLogger(logging.Logger):
    """A logger of ours that stays enabled: `logging.config` disables all that it does not name, unless it is asked not to."""

    disabled = property(lambda _: False, lambda *_: None)


def keep_enabled() -> None:
    """From now on keep our loggers enabled, whatever user code does, including those that are made later."""
    for name in ("amqpworker", *logging.root.manager.loggerDict):
        if name.partition(".")[0] == "amqpworker":
            logging.getLogger(name).__class__ = KeptLogger


def hush(library: str) -> None:
    """
    Drop what a library logs in threads that keep a connection of ours, unless its debug lines are wanted.

    pika tells a lost connection in up to five lines with tracebacks, in every service that publishes, where our own
    line says the same once. What a service does with pika itself is left alone.
    """
    for name in list(logging.root.manager.loggerDict):
        if name.split(".")[0] == library:
            logger = logging.getLogger(name)
            if not any(isinstance(one, Hush) for one in logger.filters):
                logger.addFilter(Hush())


class Hush(logging.Filter):
    """Lets nothing through that is said in threads which keep a connection; what is wanted is written by another one."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether a record is written now."""
        if not in_io_thread():
            return True
        if logging.getLogger(record.name).isEnabledFor(logging.DEBUG):
            record.msg, record.args = record.getMessage(), ()
            QUEUE.put(record)
        return False


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


def record_of(logger: object, event: dict[str, Any]) -> tuple[LogLine, dict[str, Any]]:
    """Return the line and the keywords of which `logging` makes a record that structlog's formatter takes as its own."""
    keywords = {name: event.pop(name) for name in ("exc_info", "stack_info") if event.get(name) is not None}
    return LogLine(event), {"extra": {"_logger": logger, "_name": ""}, **keywords}


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """Return the fields of a record: of one by `record_of` or by structlog, or the message of any other, with its task."""
    if isinstance(record.msg, dict) and hasattr(record, "_logger"):
        return dict(record.msg)
    return add_task({"event": record.getMessage()})


def _shown(value: object) -> str:
    return value if isinstance(value, str) and value.isprintable() and " " not in value else repr(value)
