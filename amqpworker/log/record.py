"""
The log records of this package: a message with fields, which any handler of the standard library shows as text.

structlog's `ProcessorFormatter`, if a service uses it, takes such a record as one of structlog's own.
"""

from __future__ import annotations

import logging
from typing import Any


class LogLine(dict[str, Any]):
    """The fields of one line, without passwords; any other record is redacted when it is formatted."""

    def __str__(self) -> str:
        fields = " ".join(f"{name}={_field_text(value)}" for name, value in self.items() if name != "event")
        return f"{self.get('event', '')} {fields}".rstrip()


def make_record(
    logger: logging.Logger, level: int, line: LogLine, error: BaseException | None, callers: int
) -> logging.LogRecord:
    """Return the record of a line that the function `callers` calls above this one wrote."""
    path, number, function, _ = logger.findCaller(stacklevel=callers + 1)
    exc_info = None if error is None else (type(error), error, error.__traceback__)
    return logger.makeRecord(
        logger.name, level, path, number, line, (), exc_info, function, extra={"_logger": logger, "_name": ""}
    )


def lines_dropped(count: int) -> logging.LogRecord:
    """Return the record that takes the place of `count` dropped lines."""
    logger, line = logging.getLogger("amqpworker.log"), LogLine(event="log_lines_dropped", count=count)
    return make_record(logger, logging.WARNING, line, None, callers=1)


def _field_text(value: object) -> str:
    return value if isinstance(value, str) and value.isprintable() and " " not in value else repr(value)
