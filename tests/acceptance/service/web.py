"""
A web service for gunicorn: each request sends one task, and is answered when its fate is known.

    gunicorn web:application        200 where the broker has confirmed it, 503 where the send has failed
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import Any

from jobs import plain
from sender import send_once

Start = Callable[[str, list[tuple[str, str]]], Any]

numbers = itertools.count()


def application(_environ: dict[str, Any], start: Start) -> Iterable[bytes]:
    """Answer one request."""
    confirmed = send_once(plain.message(next(numbers)))
    body = b"accepted\n" if confirmed else b"not sent\n"
    headers = [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))]
    start("200 OK" if confirmed else "503 Service Unavailable", headers)
    return [body]
