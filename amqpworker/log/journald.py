"""
Log lines for systemd's journal, with their level and fields: `journalctl -p warning`, `journalctl AMQPWORKER_TASK=shop.mail`.

Entries go to the journal's own socket (https://systemd.io/JOURNAL_NATIVE_PROTOCOL/); what it does not accept is written to
standard error as text, each line with its level in front (sd-daemon(3)).
"""

from __future__ import annotations

import json
import os
import re
import select
import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, TextIO

from amqpworker.log.record import LogLine
from amqpworker.log.terminal import printable
from amqpworker.log.writer import MAX_WAIT, LineHandler

FIELD_PREFIX = "AMQPWORKER_"
MAX_NAME_LENGTH = 64
# Of one field; a datagram takes about 200 kB.
MAX_VALUE_LENGTH = 32 * 1024
PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}
NOTICE = 5
# The journal has its own time and logger field, and shows the level as PRIORITY; a traceback follows on lines of its own.
NOT_IN_HEAD = frozenset({"timestamp", "level", "logger", "exception", "stack"})


def is_journal(stream: TextIO | None, environ: Mapping[str, str] = os.environ) -> bool:
    """Return whether systemd has connected this stream with the journal (systemd.exec(5), `JOURNAL_STREAM`)."""
    expected = environ.get("JOURNAL_STREAM")
    if stream is None or not expected:
        return False
    try:
        found = os.fstat(stream.fileno())
    except (AttributeError, OSError, ValueError):
        return False
    return expected == f"{found.st_dev}:{found.st_ino}"


def entry_of(line: str, as_json: bool) -> dict[str, str]:
    """Return the journal's fields for a line of JSON, with that line or its text as the message; another line is all text."""
    try:
        fields = json.loads(line)
    except ValueError:
        fields = None
    if not isinstance(fields, dict):
        return {"MESSAGE": printable(line), "PRIORITY": str(NOTICE), "SYSLOG_IDENTIFIER": "amqpworker"}
    priority = PRIORITIES.get(str(fields.get("level")), NOTICE)
    entry = {
        "MESSAGE": line if as_json else _as_text(fields),
        "PRIORITY": str(priority),
        "SYSLOG_IDENTIFIER": "amqpworker",
    }
    for name, value in fields.items():
        if name not in NOT_IN_HEAD or name == "logger":
            entry[field_name(name)] = value if isinstance(value, str) else json.dumps(value)
    return entry


def _as_text(fields: dict[str, Any]) -> str:
    head = printable(str(LogLine({name: value for name, value in fields.items() if name not in NOT_IN_HEAD})))
    tail = [printable(str(fields[name]), "\n\t") for name in ("exception", "stack") if fields.get(name)]
    return "\n".join([head, *tail])


def field_name(name: str) -> str:
    """Return the name of a field in the journal, which has capitals, digits and underscores."""
    return (FIELD_PREFIX + re.sub(r"[^A-Z0-9_]", "_", name.upper()))[:MAX_NAME_LENGTH]


def encode_entry(entry: Mapping[str, str]) -> bytes:
    """Return an entry in the journal's format: a line per field, and a length before a value that has several lines."""
    parts: list[bytes] = []
    for name, value in entry.items():
        data = value.encode("utf-8", "backslashreplace")
        if len(data) > MAX_VALUE_LENGTH:
            # Not in the middle of a character: the journal would show the whole value as bytes.
            data = data[:MAX_VALUE_LENGTH].decode("utf-8", "ignore").encode()
        if b"\n" in data:
            parts += [name.encode(), b"\n", len(data).to_bytes(8, "little"), data, b"\n"]
        else:
            parts += [name.encode(), b"=", data, b"\n"]
    return b"".join(parts)


class JournalHandler(LineHandler):
    """A handler that turns the JSON lines of its formatter into entries of the journal, with text or the JSON as message."""

    address = "/run/systemd/journal/socket"

    def __init__(self, stream: TextIO | None, as_json: bool) -> None:
        super().__init__(stream)
        self._as_json = as_json
        self._open()

    def _open(self) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._ready = select.poll()
        self._ready.register(self._socket, select.POLLOUT)
        self._connected = False

    def _write(self, text: str) -> bool:
        entry = entry_of(text.rstrip("\n"), self._as_json)
        for _ in range(2):
            try:
                self._connect()
                self._socket.send(encode_entry(entry))
            except BlockingIOError:
                # The journal does not read: only the first line waits.
                if self._dropped or not self._ready.poll(MAX_WAIT * 1000):
                    return False
            except OSError:  # there is no such socket, or the entry is too large
                self._connected = False
                return self._write_text(entry)
            else:
                return True
        return False

    def _connect(self) -> None:
        """Connect; again after the journal was restarted, or `logging.config` closed all handlers."""
        if self._socket.fileno() < 0:
            self._open()
        if not self._connected:
            self._socket.connect(self.address)
            self._connected = True

    def _write_text(self, entry: Mapping[str, str]) -> bool:
        lines = entry["MESSAGE"].splitlines() or [""]
        return super()._write("".join(f"<{entry['PRIORITY']}>{line}\n" for line in lines))

    def _is_writable(self, wait: float) -> bool:
        return bool(self._ready.poll(wait * 1000)) and super()._is_writable(wait)

    def close(self) -> None:
        """Close the socket."""
        super().close()
        with suppress(OSError):
            self._socket.close()
