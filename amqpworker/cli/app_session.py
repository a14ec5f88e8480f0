"""
How a command waits for the broker: with a word on a terminal, and never longer than somebody wants to.

Decides what is said meanwhile, and that a command that is interrupted waits for nothing more.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from amqpworker.log.terminal import printable

if TYPE_CHECKING:
    from amqpworker.app import App

__all__ = ["at_work"]

PATIENCE = 1.0


@contextmanager
def at_work(app: App) -> Iterator[None]:
    """Send by an app: a wait for its broker is reported on a terminal, and the app is closed at the end."""
    telling = threading.Timer(PATIENCE, tell, [app])
    telling.daemon = True
    if sys.stderr.isatty():
        telling.start()
    try:
        yield
    except BaseException:
        # What has failed, or is not confirmed at an interrupt, is given up: `close` would wait for it.
        app.producer.close(0.0)
        raise
    finally:
        telling.cancel()
        app.close()


def tell(app: App) -> None:
    """Say what is waited for, and why as far as that is known, unless the broker is there."""
    from amqpworker.broker.address import addresses, places

    publisher = app.producer.publisher
    if not publisher.connected:
        why = f": {publisher.problem.text}" if publisher.problem is not None else ""
        sys.stderr.write(printable(f"waiting for the broker at {places(addresses(app.url))}{why} …") + "\n")
