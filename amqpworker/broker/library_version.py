"""Which versions of a library are accepted: those that the tests were run with."""

from __future__ import annotations

import re


def require_version(library: str, installed: str, oldest: tuple[int, ...], first_unknown: tuple[int, ...]) -> None:
    """Raise ImportError unless a library is of version `oldest` or later, and older than `first_unknown`."""
    numbers = tuple(int(part) for part in re.findall(r"\d+", installed)[:3])
    if not oldest <= numbers < first_unknown:
        accepted = f"{library}>={_text(oldest)},<{_text(first_unknown)}"
        raise ImportError(f"amqpworker requires {accepted}, but {library} {installed} is installed.")


def _text(numbers: tuple[int, ...]) -> str:
    return ".".join(map(str, numbers))
