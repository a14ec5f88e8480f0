"""
The state of a worker process before any code of the app has run: its folder, and its signal handlers.

Decides nothing. A task may change both for the whole process, and some parts need them as they were.
"""

from __future__ import annotations

import os

from amqpworker.worker.signals import OwnSignals


class Origin:
    """The present state of this process; `folder` is None if the current folder was deleted."""

    def __init__(self) -> None:
        self.signals = OwnSignals()
        self.folder: str | None
        try:
            self.folder = os.getcwd()
        except OSError:
            self.folder = None
