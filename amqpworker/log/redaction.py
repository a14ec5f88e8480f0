"""
Keep passwords out of messages and logs.

A password is everything between the user's name and the host of a URL, in a malformed URL too, and a parameter with such a name.
When in doubt, too much is hidden rather than too little.
"""

from __future__ import annotations

import re
from typing import Any

from amqpworker.errors import TimeLimitExceeded

HIDDEN = "***"

# bounded, so that a long text costs no more than its length
_SCHEME = re.compile(r"((?:^|[,\s])\s{0,8}[A-Za-z][A-Za-z0-9+.-]{0,30}://)")

_HOST_AND_PORT = re.compile(r"(\[[^\]]*+\]?+|(?!\[)[^:/?#]*):([^/?#,]*)(.*)", re.DOTALL)

# The end of a password in a text, at the latest: a space, or the start of another URL.
_NEXT = re.compile(r"\s|[,;|'\"<>()\[\]{}]{1,4}[A-Za-z][A-Za-z0-9+.-]{0,30}://")

_USER = re.compile(
    r"(?!\[[0-9A-Fa-f:.]+\])"  # a host that is an address
    # a host and its port, unless what follows can be all of a password up to its @
    r"(?![^\s:/?#@]*:\d{1,5}(?:[/?#\"\s,\]}>]|$|[;)'](?![A-Za-z0-9._~!$&'()*+;=%-]*@)))"
    r"[^\s:/?#@]*:"
)

_PARAMETER = re.compile(r"([?&;](?:(?:ssl)?password|passwd|pwd|pass|secret|token)=)[^\s&;#'\"<>]+", re.IGNORECASE)

MAX_DEPTH = 8


def redact_url(url: str) -> str:
    """Return a URL, or a list of them separated by commas, with `***` in place of each password."""
    parts = _SCHEME.split(url)
    # the odd ones are schemes
    shown = "".join(part if number % 2 else _hide(part) for number, part in enumerate(parts))
    return _PARAMETER.sub(rf"\1{HIDDEN}", shown)


def _hide(part: str) -> str:
    """Hide the password in what follows a scheme: everything up to the last `@`, in case a `/` in it is not encoded."""
    before, at, after = part.rpartition("@")
    if at:
        user, colon, _ = before.partition(":")
        return f"{user}:{HIDDEN}@{after}" if colon else part
    match = _HOST_AND_PORT.match(part)
    if match is None or match[2].isdigit() or not match[2]:
        return part
    # no host, or a password in the place of the port
    return f"{match[1]}:{HIDDEN}{match[3]}"


def redact_text(text: str) -> str:
    """Return a text with `***` in place of the password of each URL in it."""
    if "://" not in text:
        return text
    if "?" in text:
        text = _PARAMETER.sub(rf"\1{HIDDEN}", text)
    return _hide_in_text(text) if "@" in text else text


def _hide_in_text(text: str) -> str:
    """
    Hide everything between a user's name and the last `@` before a space or another URL.

    Each part of the text is scanned a fixed number of times: it may be long, and the whole process waits.
    """
    shown: list[str] = []
    done = place = end = last_at = 0
    while (found := text.find("://", place)) >= 0:
        start = found + len("://")
        if start > end:
            following = _NEXT.search(text, start)
            end = len(text) if following is None else following.start()
            last_at = text.rfind("@", start, end)
        if last_at < start:
            place = max(start, end)
        elif (user := _USER.match(text, start, end)) is None:
            place = start
        else:
            shown += text[done : user.end()], HIDDEN, "@"
            done = place = last_at + 1
    shown.append(text[done:])
    return "".join(shown)


def redact_value(value: Any, depth: int = 0) -> Any:
    """Return a value of a log line without passwords; a value that is neither plain nor a collection becomes its text."""
    if isinstance(value, str):
        return redact_text(value)
    if value is None or isinstance(value, bool | int | float):
        return value
    if depth < MAX_DEPTH:
        if isinstance(value, dict):
            return {redact_text(str(name)): redact_value(held, depth + 1) for name, held in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [redact_value(held, depth + 1) for held in value]
    return redact_text(_text_of(value))


def _text_of(value: Any) -> str:
    try:
        return f"{type(value).__name__}: {value}" if isinstance(value, BaseException) else repr(value)
    except TimeLimitExceeded:
        raise  # of the task that writes this line
    except Exception as error:  # noqa: BLE001 - a line must not fail because of a value
        return f"<{type(value).__name__}, whose repr() raised {type(error).__name__}>"
