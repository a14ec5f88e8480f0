"""An app whose tasks on a bounded queue all fail and are retried, until the folder of the test has a file `calm`."""

from __future__ import annotations

import os
import time
from pathlib import Path

from tenacity import Retrying, stop_after_attempt, wait_fixed

from amqpworker import App, current

FOLDER = Path(os.environ.get("STORM_FOLDER", "."))
BOUND = 200
WAIT = 2.0

app = App()
QUEUE = app.queue("small", max_length=BOUND)


@app.task(name="storm", queue=QUEUE, retry=Retrying(stop=stop_after_attempt(10**6), wait=wait_fixed(WAIT)))
def storm() -> None:
    """Fail, or note the id."""
    time.sleep(0.02)
    if not (FOLDER / "calm").exists():
        raise OSError("away")
    with (FOLDER / "done").open("a") as file:
        file.write(f"{current().id}\n")
