"""
How lines are logged: as text on a terminal, as JSON lines elsewhere, and never with a password.

Decides the form of a line, and what is told about the task in whose run it is written; where lines go that nobody
takes is left to `logsink`. Loggers pass everything to the standard library's `logging`: in a service that publishes, its own
handlers show our lines; `configure` is for programs of ours.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import MutableMapping
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, Processor

from amqpworker.errors import ConfigError
from amqpworker.logsink import Sink
from amqpworker.redaction import redact_text, redact_url, redact_value

__all__ = ["Logger", "configure", "get_logger", "hush", "redact", "redact_text", "redact_url", "task_context"]

task_context: ContextVar[object | None] = ContextVar("amqpworker_task", default=None)
"""What runs in this context: something with the attributes `task`, `id`, `attempt` and `queue`."""

TASK_FIELDS = ("task", "id", "attempt", "queue")

LEVELS = ("debug", "info", "warning", "error", "critical")

LIBRARY_LEVELS = {
    "pika": logging.WARNING,
    # each of these tells a lost connection in up to five lines with tracebacks; our own line says the same once
    "pika.adapters": logging.CRITICAL,
    "pika.connection": logging.CRITICAL,
    "pika.channel": logging.CRITICAL,
    "aio_pika": logging.WARNING,
    "aiormq": logging.WARNING,
    "aiormq.connection": logging.CRITICAL,
    "asyncio": logging.WARNING,
}


class Line(dict[str, Any]):
    """The fields of one line, which any formatter of the standard library shows as text."""

    def __str__(self) -> str:
        fields = " ".join(f"{name}={_shown(value)}" for name, value in self.items() if name != "event")
        return f"{self.get('event', '')} {fields}".rstrip()


class Logger(structlog.BoundLoggerBase):
    """A structlog logger that asks `logging` whether a line is wanted before it does anything for it."""

    def wants_debug(self) -> bool:
        """Tell whether a debug line would be written, where making its fields costs something."""
        return self._logger.isEnabledFor(logging.DEBUG)  # type: ignore[no-any-return]

    def debug(self, event: str, **fields: Any) -> None:
        """Log what helps to follow the program step by step."""
        if self._logger.isEnabledFor(logging.DEBUG):
            self._proxy_to_logger("debug", event, **fields)

    def info(self, event: str, **fields: Any) -> None:
        """Log what an operator wants to know."""
        if self._logger.isEnabledFor(logging.INFO):
            self._proxy_to_logger("info", event, **fields)

    def warning(self, event: str, **fields: Any) -> None:
        """Log what an operator should look at."""
        if self._logger.isEnabledFor(logging.WARNING):
            self._proxy_to_logger("warning", event, **fields)

    def error(self, event: str, **fields: Any) -> None:
        """Log what went wrong."""
        if self._logger.isEnabledFor(logging.ERROR):
            self._proxy_to_logger("error", event, **fields)

    def exception(self, event: str, **fields: Any) -> None:
        """Log what went wrong, with the traceback of the exception that is being handled."""
        self.error(event, **{"exc_info": True, **fields})

    def critical(self, event: str, **fields: Any) -> None:
        """Log what ends the program."""
        if self._logger.isEnabledFor(logging.CRITICAL):
            self._proxy_to_logger("critical", event, **fields)


def get_logger(name: str) -> Logger:
    """Return a logger that costs next to nothing until it writes a line; it follows `configure` at any time."""
    return Logger(logging.getLogger(name), [add_task, redact, _hand_over], {})


def configure(level: str = "info", json: bool | None = None, stream: TextIO | None = None) -> None:
    """
    Let this process log to `stream` (default: standard error), whatever logger a line comes from.

    `json` is true for JSON lines, false for text; left out, a terminal gets text.

    Raises:
        ConfigError: there is no such level.
    """
    if level.lower() not in LEVELS:
        raise ConfigError(f"There is no log level {level!r}; there are {', '.join(LEVELS)}.")
    stream = sys.stderr if stream is None else stream
    on_terminal = _is_terminal(stream)
    render = _json_renderer() if (not on_terminal if json is None else json) else _text_renderer(stream)
    sink = Sink(stream)
    sink.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[add_task],
            processors=[_describe, redact, *render],
            # `_describe` takes them off the record itself
            keep_exc_info=True,
            keep_stack_info=True,
        )
    )
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler, Sink)]:
        root.removeHandler(handler)
    root.addHandler(sink)
    root.setLevel(level.upper())
    for name, least in LIBRARY_LEVELS.items():
        logging.getLogger(name).setLevel(least)
    _take_along_structlog()


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


def _take_along_structlog() -> None:
    """Send the lines of tasks that use structlog the same way, unless their code has set it up otherwise."""
    if structlog.is_configured():
        return
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.contextvars.merge_contextvars,
            structlog.stdlib.PositionalArgumentsFormatter(),
            add_task,
            _hand_over,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )


def add_task(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """Tell which run of which task the line comes from; asked only for lines that are written."""
    running = task_context.get()
    if running is not None:
        for name in TASK_FIELDS:
            event.setdefault(name, getattr(running, name, None))
    return event


def redact(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """Hide the passwords in all URLs of a line, however deep they stand in its values."""
    for name, value in event.items():
        kind = type(value)
        if kind is not int and kind is not float and name not in _META:
            event[name] = redact_value(value)
    return event


_META = ("_record", "_from_structlog", "exc_info", "stack_info")


def _hand_over(logger: Any, method: str, event: EventDict) -> tuple[tuple[Line], dict[str, Any]]:
    """Make a record of `logging` of it, which `ProcessorFormatter` takes apart again."""
    extra = {"_logger": logger, "_name": method}
    told = {name: event.pop(name) for name in ("exc_info", "stack_info") if event.get(name) is not None}
    return (Line(event),), {"extra": extra, **told}


def _describe(_logger: Any, _method: str, event: EventDict) -> MutableMapping[str, Any]:
    """Put time, level and logger of the record before its fields, and its traceback, as text, behind them."""
    record: logging.LogRecord = event.pop("_record")
    event.pop("_from_structlog")
    at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
    told: dict[str, Any] = {
        "timestamp": at.replace("+00:00", "Z"),
        "level": record.levelname.lower(),
        "event": event.pop("event", ""),
        "logger": record.name,
    }
    # what a line says of itself must not hide what it is
    told.update({f"{name}_" if name in told else name: value for name, value in event.items()})
    told.pop("exc_info", None)
    if record.exc_info and record.exc_info[1] is not None:
        told["exception"] = "".join(traceback.format_exception(record.exc_info[1])).rstrip()
    if record.stack_info:
        told["stack"] = str(record.stack_info)
    told.pop("stack_info", None)
    record.exc_info = record.exc_text = record.stack_info = None
    return told


def _json_renderer() -> list[Processor]:
    return [structlog.processors.JSONRenderer()]


def _text_renderer(stream: TextIO | None) -> list[Processor]:
    colors = _is_terminal(stream) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    plain = structlog.dev.plain_traceback
    return [_one_line, structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=plain, sort_keys=False)]


def _one_line(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """Escape what would move a terminal's cursor or feign another line: values come from messages of strangers."""
    for name, value in event.items():
        if isinstance(value, str) and not value.isprintable():
            kept = "\n\t" if name in ("exception", "stack") else ""
            event[name] = "".join(c if c.isprintable() or c in kept else repr(c)[1:-1] for c in value)
    return event


def _shown(value: object) -> str:
    return value if isinstance(value, str) and value.isprintable() and " " not in value else repr(value)


def _is_terminal(stream: TextIO | None) -> bool:
    try:
        return stream is not None and stream.isatty()
    except (AttributeError, ValueError):
        return False
