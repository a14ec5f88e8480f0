"""
What log lines of all loggers look like in our programs: text on a terminal, fields in systemd's journal, JSON lines elsewhere.

structlog renders text, and is loaded for that only: in a supervisor that logs JSON it would add 6 MiB to 25 (structlog 26.1).
"""

from __future__ import annotations

import json as jsonlib
import logging
import os
import sys
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TextIO, TypeAlias

from amqpworker.errors import ConfigError
from amqpworker.log.logger import add_task, get_logger, keep_enabled
from amqpworker.log.record import LogLine
from amqpworker.log.redaction import redact_text, redact_value
from amqpworker.log.terminal import printable
from amqpworker.log.writer import LineHandler

if TYPE_CHECKING:
    from types import TracebackType

    from structlog.typing import EventDict

Render: TypeAlias = Callable[[dict[str, Any]], str]

LOG_LEVELS = ("debug", "info", "warning", "error", "critical")

LIBRARY_LEVELS = {
    "pika": logging.WARNING,
    # these log a lost connection in up to five lines with tracebacks; our own line reports the same once
    "pika.adapters": logging.CRITICAL,
    "pika.connection": logging.CRITICAL,
    "pika.channel": logging.CRITICAL,
    "aio_pika": logging.WARNING,
    "aiormq": logging.WARNING,
    "aiormq.connection": logging.CRITICAL,
    "asyncio": logging.WARNING,
}


def configure(
    level: str = "info", json: bool | None = None, stream: TextIO | None = None, *, user_code: bool = True
) -> None:
    """
    Log to `stream` (default: standard error) from all loggers of this process.

    `json` is true for JSON lines, false for text, None for text on a terminal and in systemd's journal and JSON elsewhere. A
    process that runs no `user_code` does not set up structlog. Raises ConfigError if there is no such level.
    """
    if level.lower() not in LOG_LEVELS:
        raise ConfigError(f"Unknown log level {level!r}: choose one of {', '.join(LOG_LEVELS)}.")
    handler = _handler(sys.stderr if stream is None else stream, json)
    root = logging.getLogger()
    for handler_before in [found for found in root.handlers if isinstance(found, LineHandler)]:
        root.removeHandler(handler_before)
        handler_before.close()
    root.addHandler(handler)
    root.setLevel(level.upper())
    for name, library_level in LIBRARY_LEVELS.items():
        logging.getLogger(name).setLevel(library_level)
    if user_code:
        keep_enabled()
        _configure_structlog()


def log_uncaught() -> None:
    """Log an uncaught exception that ends this program: Python would write it as text among JSON lines."""
    log = get_logger("amqpworker")
    print_uncaught = sys.excepthook

    def on_uncaught(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        if isinstance(error, Exception):
            log.critical("program_failed", exc_info=error)
        else:
            print_uncaught(kind, error, traceback)

    sys.excepthook = on_uncaught


class LineFormatter(logging.Formatter):
    """Renders the records of our loggers and of all others in the same form."""

    def __init__(self, render: Render) -> None:
        super().__init__()
        self._render = render

    def format(self, record: logging.LogRecord) -> str:
        """Return a record as a line."""
        return self._render(_fields_of(record))


def _handler(stream: TextIO | None, json: bool | None) -> LineHandler:
    if "JOURNAL_STREAM" in os.environ:
        # Loaded only if it may be needed.
        from amqpworker.log.journald import JournalHandler, is_journal

        if is_journal(stream):
            journal = JournalHandler(stream, as_json=bool(json))
            journal.setFormatter(LineFormatter(_json))
            return journal
    as_json = not _is_terminal(stream) if json is None else json
    handler = LineHandler(stream)
    handler.setFormatter(LineFormatter(_json if as_json else _text_renderer(stream)))
    return handler


def _configure_structlog() -> None:
    """Send the structlog lines of tasks to the same handler, unless their code has configured structlog otherwise."""
    import structlog

    if structlog.is_configured():
        return
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.contextvars.merge_contextvars,
            structlog.stdlib.PositionalArgumentsFormatter(),
            _to_logging,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )


def _to_logging(logger: Any, _method: str, event: EventDict) -> tuple[tuple[object], dict[str, Any]]:
    """Pass a line of structlog to `logging`; its own `wrap_for_formatter` does, too, but other handlers then show a `dict`."""
    fields = dict(event)
    keywords = {name: fields.pop(name) for name in ("exc_info", "stack_info") if fields.get(name) is not None}
    line = LogLine(redact_value(add_task(fields)))
    return (line,), {"extra": {"_logger": logger, "_name": ""}, **keywords}


def _fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """Return time, level, event and logger of a record, then its fields, then its traceback, without passwords."""
    if isinstance(record.msg, LogLine):
        fields = dict(record.msg)
    elif isinstance(record.msg, dict) and hasattr(record, "_logger"):  # of a service that configured structlog itself
        fields = redact_value(record.msg)
    else:
        fields = redact_value(add_task({"event": record.getMessage()}))
    at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
    line: dict[str, Any] = {
        "timestamp": at.replace("+00:00", "Z"),
        "level": record.levelname.lower(),
        "event": fields.pop("event", ""),
        "logger": redact_text(record.name),
    }
    # a field must not hide what the line is
    line.update({f"{name}_" if name in line else name: value for name, value in fields.items()})
    line.pop("exc_info", None)
    if record.exc_info and record.exc_info[1] is not None:
        line["exception"] = redact_text("".join(traceback.format_exception(record.exc_info[1])).rstrip())
    if record.stack_info:
        line["stack"] = redact_text(str(record.stack_info))
    line.pop("stack_info", None)
    return line


def _json(fields: dict[str, Any]) -> str:
    return jsonlib.dumps(fields, default=repr)


def _text_renderer(stream: TextIO | None) -> Render:
    from structlog.dev import ConsoleRenderer, plain_traceback

    colors = _is_terminal(stream) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    renderer = ConsoleRenderer(colors=colors, exception_formatter=plain_traceback, sort_keys=False)
    return lambda fields: renderer(None, "", _escaped(fields))


def _escaped(fields: dict[str, Any]) -> dict[str, Any]:
    """Escape what would move a terminal's cursor or feign another line: values come from untrusted messages."""
    return {
        name: printable(value, keep="\n\t" if name in ("exception", "stack") else "")
        if isinstance(value, str)
        else value
        for name, value in fields.items()
    }


def _is_terminal(stream: TextIO | None) -> bool:
    try:
        return stream is not None and stream.isatty()
    except (AttributeError, ValueError):
        return False
