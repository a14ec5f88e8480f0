"""The names of connections and consumers in the lists of the broker, within the 255 bytes of AMQP's short strings."""

from __future__ import annotations

import os
import platform
import socket
import sys
from pathlib import Path
from typing import Any

import amqpworker

MAX_LABEL_BYTES = 255


def process_name() -> str:
    """Return the name of this process: its host and its process id."""
    return f"{socket.gethostname()}:{os.getpid()}"


def program() -> str:
    """Return the name of this program: of its script, or of the module that was run as one."""
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    if spec is not None:
        return str(spec.name).removesuffix(".__main__")
    name = Path(sys.argv[0]).name if sys.argv else ""
    return name if name not in {"", "-c", "-"} else "python"


def connection_name(owner: str, role: str) -> str:
    """Return the name of a connection: its owner, its role and the process."""
    end = f" {role} {process_name()}"
    return _cut(owner, MAX_LABEL_BYTES - len(end.encode())) + end


def client_properties(name: str, library: str) -> dict[str, Any]:
    """Return what the broker shows about the client, `library` is the name and version of its AMQP library."""
    return {
        "connection_name": name,
        "product": "amqpworker",
        "version": amqpworker.__version__,
        "platform": f"Python {platform.python_version()}, {library}",
        "information": "",
    }


def replies_tag() -> str:
    """Return the consumer tag of what takes the replies to calls."""
    return f"{process_name()} replies"


class ConsumerTags:
    """Makes consumer tags, such as `host:4711 emails`; each is used once in a process, so none is still in use."""

    def __init__(self) -> None:
        self._made: dict[str, int] = {}

    def make(self, queue: str) -> str:
        """Return a tag for a subscription to a queue, with a number from the second one on."""
        base = _cut(f"{process_name()} {queue}", MAX_LABEL_BYTES - len(" 4294967295"))
        count = self._made[base] = self._made.get(base, 0) + 1
        return base if count == 1 else f"{base} {count}"


def _cut(text: str, most: int) -> str:
    """Return as much of the beginning of a text as fits into `most` bytes of UTF-8."""
    return text.encode(errors="replace")[: max(0, most)].decode(errors="ignore")
