"""
What log lines look like in programs of ours: text on a terminal, fields in systemd's journal, JSON lines elsewhere.

Decides the form and the order of a line's fields, for the lines of all loggers of the process. What a line tells is left
to `logger`, and where lines go that nobody takes to `writer`. structlog, which renders text, is loaded where it is needed.
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
from amqpworker.log.logger import add_task, fields_of, get_logger, keep_enabled, record_of, redact
from amqpworker.log.terminal import printable
from amqpworker.log.writer import LineHandler

if TYPE_CHECKING:
    from types import TracebackType

    from structlog.typing import EventDict

__all__ = ["check_level", "configure", "log_uncaught"]

Render: TypeAlias = Callable[[dict[str, Any]], str]

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


def configure(
    level: str = "info", json: bool | None = None, stream: TextIO | None = None, *, user_code: bool = True
) -> None:
    """
    Let this process log to `stream` (default: standard error), whatever logger a line comes from.

    `json` is true for JSON lines, false for text; left out, a terminal and systemd's journal get text. A process that runs
    no `user_code` has no lines of structlog to take along.

    Raises:
        ConfigError: there is no such level.
    """
    check_level(level)
    stream = sys.stderr if stream is None else stream
    sink, render = _way_out(stream, json)
    sink.setFormatter(Form(render))
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler, LineHandler)]:
        root.removeHandler(handler)
        handler.close()
    root.addHandler(sink)
    root.setLevel(level.upper())
    for name, least in LIBRARY_LEVELS.items():
        logging.getLogger(name).setLevel(least)
    if user_code:
        keep_enabled()
        _take_along_structlog()


def log_uncaught() -> None:
    """Have the log show an uncaught exception that ends this program: Python would write it as text among JSON lines."""
    log = get_logger("amqpworker")
    shown_by_python = sys.excepthook

    def on_uncaught(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        if isinstance(error, Exception):
            log.critical("program_failed", exc_info=error)
        else:
            shown_by_python(kind, error, traceback)

    sys.excepthook = on_uncaught


def check_level(level: str) -> None:
    """
    See to it that there is such a log level.

    Raises:
        ConfigError: there is none.
    """
    if level.lower() not in LEVELS:
        raise ConfigError(f"There is no log level {level!r}; there are {', '.join(LEVELS)}.")


class Form(logging.Formatter):
    """Gives lines their form, ours and those of other loggers alike."""

    def __init__(self, render: Render) -> None:
        super().__init__()
        self._render = render

    def format(self, record: logging.LogRecord) -> str:
        """Return a record as a line."""
        return self._render(redact(_described(record)))


def _way_out(stream: TextIO | None, json: bool | None) -> tuple[LineHandler, Render]:
    """Return who writes the lines for a stream, and what renders them for it."""
    if "JOURNAL_STREAM" in os.environ:
        # Loaded only where it may be needed.
        from amqpworker.log.journald import JournalHandler, is_journal

        if is_journal(stream):
            return JournalHandler(stream, as_json=bool(json)), _json
    as_json = not _is_terminal(stream) if json is None else json
    return LineHandler(stream), _json if as_json else _text_renderer(stream)


def _take_along_structlog() -> None:
    """Send the lines of tasks that use structlog the same way, unless their code has set it up otherwise."""
    import structlog

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


def _hand_over(logger: Any, _method: str, event: EventDict) -> tuple[tuple[object], dict[str, Any]]:
    line, keywords = record_of(logger, dict(event))
    return (line,), keywords


def _described(record: logging.LogRecord) -> dict[str, Any]:
    """Return time, level and logger of a record, its fields, and its traceback, as text, behind them."""
    fields = fields_of(record)
    at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
    line: dict[str, Any] = {
        "timestamp": at.replace("+00:00", "Z"),
        "level": record.levelname.lower(),
        "event": fields.pop("event", ""),
        "logger": record.name,
    }
    # what a line says of itself must not hide what it is
    line.update({f"{name}_" if name in line else name: value for name, value in fields.items()})
    line.pop("exc_info", None)
    if record.exc_info and record.exc_info[1] is not None:
        line["exception"] = "".join(traceback.format_exception(record.exc_info[1])).rstrip()
    if record.stack_info:
        line["stack"] = str(record.stack_info)
    line.pop("stack_info", None)
    return line


def _json(fields: dict[str, Any]) -> str:
    return jsonlib.dumps(fields, default=repr)


def _text_renderer(stream: TextIO | None) -> Render:
    from structlog.dev import ConsoleRenderer, plain_traceback

    colors = _is_terminal(stream) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    renderer = ConsoleRenderer(colors=colors, exception_formatter=plain_traceback, sort_keys=False)
    return lambda fields: renderer(None, "", _one_line(fields))


def _one_line(fields: dict[str, Any]) -> dict[str, Any]:
    """Escape what would move a terminal's cursor or feign another line: values come from messages of strangers."""
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
