"""
How a command uses an app that sends: it reports on a terminal that it waits for the broker, and closes the app at the end.

Decides that a command that is interrupted waits for nothing more.
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

REPORT_AFTER = 1.0


@contextmanager
def closing_app(app: App) -> Iterator[None]:
    """Report on a terminal if the app waits for its broker, and close the app at the end."""
    report = threading.Timer(REPORT_AFTER, _report_waiting, [app])
    report.daemon = True
    if sys.stderr.isatty():
        report.start()
    try:
        yield
    except BaseException:
        # A message that is not confirmed after an error or a Ctrl-C is given up: `close` would wait for it.
        app.producer.close(0.0)
        raise
    finally:
        report.cancel()
        app.close()


def _report_waiting(app: App) -> None:
    """Print which broker the app waits for, and why if that is known; nothing if it is connected."""
    from amqpworker.broker.address import addresses, places

    publisher = app.producer.publisher
    if not publisher.connected:
        reason = f": {publisher.session.problem.text}" if publisher.session.problem is not None else ""
        sys.stderr.write(printable(f"waiting for the broker at {places(addresses(app.url))}{reason} …") + "\n")
