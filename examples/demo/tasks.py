"""What the demo's worker processes run."""

from __future__ import annotations

import ast
import os
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_fixed

from amqpworker import App, current
from examples.demo.files import python_files

# AMQPWORKER_URL names the broker.
app = App(results="sqlite:///.amqpworker/demo/results.db", default_queue=os.environ.get("DEMO_QUEUE", "demo"))


class Counts(BaseModel):
    """What one source file contains."""

    lines: int
    functions: int
    classes: int
    imports: int
    attempt: int


@app.task(retry=Retrying(stop=stop_after_attempt(3), wait=wait_fixed(1), retry=retry_if_exception_type(OSError)))
def count(path: str, *, stumbles: bool = False) -> Counts:
    """Parse a file and count its parts; one that `stumbles` fails at its first attempt."""
    attempt = current().attempt
    if stumbles and attempt == 1:
        raise OSError("the demo lets this file fail once")
    source = Path(path).read_bytes()
    kinds = Counter(type(node) for node in ast.walk(ast.parse(source, filename=path)))
    return Counts(
        lines=source.count(b"\n"),
        functions=kinds[ast.FunctionDef] + kinds[ast.AsyncFunctionDef],
        classes=kinds[ast.ClassDef],
        imports=kinds[ast.Import] + kinds[ast.ImportFrom],
        attempt=attempt,
    )


@app.schedule("pulse", every=1)
@app.task(queue=f"{app.default_queue}.pulse")
def pulse() -> float:
    """Return how many seconds after its time this tick runs."""
    due = current().nominal
    assert due is not None
    return (datetime.now(UTC) - due).total_seconds()


@app.task
def lateness(due: datetime) -> float:
    """Return how many seconds after `due` this runs."""
    return (datetime.now(UTC) - due).total_seconds()


@app.task(result=False)
def largest(folder: str, number: int) -> list[tuple[str, int]]:
    """Return the largest source files of a folder, with their size in bytes."""
    sizes = [(str(path), path.stat().st_size) for path in python_files(Path(folder))]
    return sorted(sizes, key=lambda one: -one[1])[:number]
