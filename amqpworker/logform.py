"""
What log lines look like in programs of ours: text on a terminal, fields in systemd's journal, JSON lines elsewhere.

Decides the form and the order of a line's fields, for the lines of all loggers of the process; structlog renders them.
What a line tells is left to `logs`, and where lines go that nobody takes to `logsink`.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import MutableMapping
from datetime import UTC, datetime
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, Processor

from amqpworker.errors import ConfigError
from amqpworker.logs import add_task, record_of, redact
from amqpworker.logsink import Sink

__all__ = ["configure"]

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


def configure(level: str = "info", json: bool | None = None, stream: TextIO | None = None) -> None:
    """
    Let this process log to `stream` (default: standard error), whatever logger a line comes from.

    `json` is true for JSON lines, false for text; left out, a terminal and systemd's journal get text.

    Raises:
        ConfigError: there is no such level.
    """
    if level.lower() not in LEVELS:
        raise ConfigError(f"There is no log level {level!r}; there are {', '.join(LEVELS)}.")
    stream = sys.stderr if stream is None else stream
    sink, render = _way_out(stream, json)
    sink.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[_add_task],
            processors=[_describe, _redact, *render],
            # `_describe` takes them off the record itself
            keep_exc_info=True,
            keep_stack_info=True,
        )
    )
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler, Sink)]:
        root.removeHandler(handler)
        handler.close()
    root.addHandler(sink)
    root.setLevel(level.upper())
    for name, least in LIBRARY_LEVELS.items():
        logging.getLogger(name).setLevel(least)
    _take_along_structlog()


def _way_out(stream: TextIO | None, json: bool | None) -> tuple[Sink, list[Processor]]:
    """Return who writes the lines for a stream, and what renders them for it."""
    if "JOURNAL_STREAM" in os.environ:
        # Loaded only where it may be needed.
        from amqpworker.logjournal import JournalSink, is_journal

        if is_journal(stream):
            return JournalSink(stream, as_json=bool(json)), _json_renderer()
    as_json = not _is_terminal(stream) if json is None else json
    return Sink(stream), _json_renderer() if as_json else _text_renderer(stream)


def _take_along_structlog() -> None:
    """Send the lines of tasks that use structlog the same way, unless their code has set it up otherwise."""
    if structlog.is_configured():
        return
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.contextvars.merge_contextvars,
            structlog.stdlib.PositionalArgumentsFormatter(),
            _add_task,
            _hand_over,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )


def _add_task(_logger: Any, _method: str, event: EventDict) -> EventDict:
    return add_task(dict(event))


def _redact(_logger: Any, _method: str, event: EventDict) -> EventDict:
    return redact(dict(event))


def _hand_over(logger: Any, _method: str, event: EventDict) -> tuple[tuple[object], dict[str, Any]]:
    line, told = record_of(logger, dict(event))
    return (line,), told


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


def _is_terminal(stream: TextIO | None) -> bool:
    try:
        return stream is not None and stream.isatty()
    except (AttributeError, ValueError):
        return False
