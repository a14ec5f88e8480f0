"""What a private node writes into its `log` folder, and how a failed start is read out of it."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

OUTPUT = "output.log"
"""What the broker's programs print."""

LOG = "broker.log"
"""What the broker logs."""


def begin(folder: Path) -> None:
    """Set the logs of the start before aside as `.old`."""
    for name in (OUTPUT, LOG):
        with suppress(FileNotFoundError):
            os.replace(folder / "log" / name, folder / "log" / f"{name}.old")


def text(folder: Path) -> str:
    """Return all that was printed and logged since the last start."""
    parts = []
    for name in (OUTPUT, LOG):
        with suppress(OSError):
            parts.append((folder / "log" / name).read_text(errors="replace"))
    return "\n".join(parts)


def tail(folder: Path, count: int) -> list[str]:
    """Return the last lines that are not empty."""
    return [line for line in text(folder).splitlines() if line.strip()][-count:]


def failure(folder: Path) -> str:
    """Say in one line why the broker did not start: its first errors, or else the last thing that it said."""
    before, _, after = text(folder).partition("BOOT FAILED")
    errors = re.findall(r"(?m)^.*\[error\] <[\d.]+> *(?:- )?(.*\S)", before)[-4:]
    reason = re.findall(r"Error during startup: *(.{1,200})", after, re.DOTALL)[:1]
    said = " | ".join(errors or reason or tail(folder, 2)) or "it said nothing"
    return " ".join(said.split())


def names_taken_port(folder: Path) -> bool:
    """Tell whether the broker gave up because somebody else listens on one of its ports."""
    return "eaddrinuse" in text(folder)
