"""What the worker of the services runs: the tasks of the examples, each run of which is a line in a ledger."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from amqpworker import Run
from examples.tasks import app

LEDGER = os.environ["SERVICES_LEDGER"]


@contextmanager
def noted(run: Run) -> Iterator[None]:
    yield
    with open(LEDGER, "a") as ledger:
        ledger.write(f"{run.id}\n")


app.middleware = (noted,)
