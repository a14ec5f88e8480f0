"""The logs of a private node, and the reason of a failed start in them."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

OUTPUT = "output.log"
"""The output of the broker's programs."""

LOG = "broker.log"
"""The broker's log."""


def begin(folder: Path) -> None:
    """Rename the logs of the previous start to `.old`."""
    for name in (OUTPUT, LOG):
        with suppress(FileNotFoundError):
            os.replace(folder / "log" / name, folder / "log" / f"{name}.old")


def text(folder: Path) -> str:
    """Return all output and log lines since the last start."""
    parts = []
    for name in (OUTPUT, LOG):
        with suppress(OSError):
            parts.append((folder / "log" / name).read_text(errors="replace"))
    return "\n".join(parts)


def failure(folder: Path) -> str:
    """Return in one line why the broker did not start: its first errors, else its last lines."""
    before, _, after = text(folder).partition("BOOT FAILED")
    errors = re.findall(r"(?m)^.*\[error\] <[\d.]+> *(?:- )?(.*\S)", before)[-4:]
    reason = re.findall(r"Error during startup: *(.{1,200})", after, re.DOTALL)[:1]
    last_lines = [line for line in text(folder).splitlines() if line.strip()][-2:]
    found = " | ".join(errors or reason or last_lines) or "its logs are empty"
    return " ".join(found.split())


def names_taken_port(folder: Path) -> bool:
    """Return whether the broker failed because another process listens on one of its ports."""
    return "eaddrinuse" in text(folder)
