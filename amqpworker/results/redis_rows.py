"""
How a row is kept in Redis: its key, its value, and the script that decides which of two rows stays.

Each row is one key, which is also the channel on which its changes are announced. The value is a line with the version of this
format, the rank and the `first_sent` of the row, then a line of JSON with the rest, then the reply as it is (docs/results.md).
"""

from __future__ import annotations

import json
from urllib.parse import quote

from amqpworker.errors import ResultStoreError
from amqpworker.results.row import ResultRow
from amqpworker.text import encodable

VERSION = 1

PUT = b"""\
local function is_later(one, other)
  for place = 1, math.min(#one, #other) do
    local mine, theirs = one:byte(place), other:byte(place)
    if mine ~= theirs then return mine > theirs end
  end
  return #one > #other
end
local old = redis.call('GETRANGE', KEYS[1], 0, 1023)
if old ~= '' then
  local version, rank, sent = string.match(old, '^(%d+) (%d) ([^\\n]*)')
  local _, new_rank, new_sent = string.match(ARGV[1], '^(%d+) (%d) ([^\\n]*)')
  if version ~= '1' then return -1 end
  if sent ~= new_sent then
    if is_later(sent, new_sent) then return 0 end
  elseif tonumber(rank) > tonumber(new_rank) then
    return 0
  end
end
if ARGV[2] == '0' then
  redis.call('UNLINK', KEYS[1])
else
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
end
redis.call('PUBLISH', KEYS[1], '')
return 1
"""
"""
Stores a value, for some milliseconds, unless the row that is there stays: as `ResultRow.replaces`, but byte by byte, since Lua
compares texts by the locale of the server (https://www.lua.org/manual/5.1/manual.html#2.5.2). Returns 1 if it was stored, 0 if the
other row stays, and -1 if a later version, or another program, wrote what is there.
"""

STORED, OTHER_STAYS, UNKNOWN_VALUE = 1, 0, -1

LONGEST_LIFETIME = 10**15
"""Milliseconds, thirty thousand years: Redis refuses times that its 64 bits do not hold."""

ENCODER = json.JSONEncoder(separators=(",", ":"))


class Keys:
    """The keys of the rows of a namespace."""

    def __init__(self, namespace: str) -> None:
        # without a colon or a brace of its own, so that no key is one of another namespace
        base = f"amqpworker:{quote(namespace, safe='')}"
        self.check = f"{base}:check".encode()
        self._prefix = f"{base}:result:".encode()

    def of(self, task_id: str) -> bytes:
        """Return the key of a row, which is also its channel; ids that differ have keys that differ."""
        return self._prefix + task_id.encode("utf-8", "surrogatepass")


def value_of(row: ResultRow) -> bytes:
    """Return what is kept of a row."""
    first_sent = row.first_sent.encode("utf-8", "surrogatepass").replace(b"\n", b" ")
    rest = ENCODER.encode(
        {
            "state": encodable(row.state),
            "task": encodable(row.task),
            "stored_at": row.stored_at,
            "expires_at": row.expires_at,
            "attempt": row.attempt,
            "worker": encodable(row.worker),
            "started_at": row.started_at,
            "progress": row.progress.decode("utf-8", "surrogateescape"),
        }
    )
    return b"%d %d %b\n%b\n%b" % (VERSION, row.rank, first_sent, rest.encode(), row.reply)


def row_of(task_id: str, value: bytes) -> ResultRow:
    """Return the row that was kept; raises ResultStoreError if a later version of amqpworker, or another program, wrote it."""
    line, _, rest = value.partition(b"\n")
    text, _, reply = rest.partition(b"\n")
    version, _, line = line.partition(b" ")
    _, _, first_sent = line.partition(b" ")
    if version != b"%d" % VERSION:
        raise ResultStoreError(not_ours(task_id))
    try:
        known = json.loads(text)
        return ResultRow(
            task_id,
            known["state"],
            known["task"],
            reply,
            first_sent.decode("utf-8", "surrogatepass"),
            known["stored_at"],
            known["expires_at"],
            known["attempt"],
            known["worker"],
            known["started_at"],
            known["progress"].encode("utf-8", "surrogateescape"),
        )
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ResultStoreError(not_ours(task_id)) from error


def not_ours(task_id: str) -> str:
    """Return the text of an error about a value that was not written by this version."""
    return (
        f"The row of task {encodable(task_id)} was written by another program, or by a later version of amqpworker:"
        " use that version, or another database."
    )


def lifetime(expires_at: float, now: float) -> int:
    """Return for how many milliseconds a row is kept: 0 if it has expired, which Redis refuses as an expiry."""
    left = (expires_at - now) * 1000
    return int(min(left, LONGEST_LIFETIME)) if left > 0 else 0


def packed(*parts: bytes) -> bytes:
    """Return a command as it is sent (https://redis.io/docs/latest/develop/reference/protocol-spec/)."""
    return b"*%d\r\n%b" % (len(parts), b"".join([b"$%d\r\n%b\r\n" % (len(part), part) for part in parts]))
