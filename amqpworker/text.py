"""Texts: made shorter, or fit to be encoded; the names of callables; which known name a wrong one may mean."""

from __future__ import annotations

from collections.abc import Callable, Iterable


def truncated(text: str, most: int) -> str:
    """Return the text, without its middle if its UTF-8 is longer than `most` bytes."""
    data = text.encode("utf-8", "replace")
    if len(data) <= most:
        return data.decode("utf-8")
    half = most // 2 - 16
    return f"{data[:half].decode('utf-8', 'ignore')}\n… cut …\n{data[-half:].decode('utf-8', 'ignore')}"


def cut(text: str, most: int) -> str:
    """Return the first `most` characters of the text, and an ellipsis if there are more."""
    return text if len(text) <= most else f"{text[:most]}…"


def encodable(text: str) -> str:
    """Return the text with lone surrogates, which UTF-8 does not have, written as escapes."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def name_of(callable_: Callable[..., object]) -> str:
    """Return the name of a user's callable, for a log line."""
    kind = type(callable_)
    module = getattr(callable_, "__module__", None) or kind.__module__
    return f"{module}.{getattr(callable_, '__qualname__', kind.__qualname__)}"


def name_of_class(kind: type) -> str:
    """Return the name of a class as errors have it: with its module, unless it is built in."""
    # It is sent as UTF-8, and a class may have any name.
    return encodable(kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}")


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """Return the known name that is nearest to the given one, as a question in parentheses; "" if none is near."""
    import difflib  # for mistakes only

    near = difflib.get_close_matches(given, list(known), n=1)
    return f" (did you mean {near[0]}?)" if near else ""
