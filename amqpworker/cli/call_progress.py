"""
The bar of `amqpworker call --progress`: what the task reports, read from the result store.

Decides what is shown, and how often the store is asked. Without a terminal nothing is shown.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from amqpworker.cli.output import console
from amqpworker.client.result_waits import WantedResult
from amqpworker.errors import ConfigError, ResultStoreError
from amqpworker.lifecycle import start_thread
from amqpworker.log.terminal import printable

if TYPE_CHECKING:
    from amqpworker.app import App
    from amqpworker.client.stored_results import StoredResults
    from amqpworker.model.message import Message
    from amqpworker.model.message_status import Status

ASK_EVERY = 0.25
UNREADABLE = "the result store cannot be read"
MAX_NOTE = 60
"""Characters: a longer note leaves no space for the bar."""


@contextmanager
def showing_progress(app: App, message: Message[Any]) -> Iterator[None]:
    """Show on a terminal how far a message has come, until the end of the block; raises ConfigError if nothing is stored."""
    if app.results is None:
        raise ConfigError(
            "--progress asks the result store, and the app has none: name it, such as App(results='sqlite:///results.db'), "
            "and give --app, or leave out --progress."
        )
    task = app.tasks.get(message.task)
    if task is not None and not task.stores_result:
        raise ConfigError(f"Task {message.task} stores nothing (result=False): leave out --progress.")
    screen = console(stderr=True)
    if not screen.is_terminal:
        yield
        return
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    text = TextColumn("{task.description}", markup=False)
    ended = threading.Event()
    with Progress(text, BarColumn(), TaskProgressColumn(), TimeElapsedColumn(), console=screen, transient=True) as bar:
        update = partial(bar.update, bar.add_task("waits", total=None))
        arguments = (app.stored_results(), message, ended, update)
        start_thread(threading.Thread(target=_follow, args=arguments, name="amqpworker-progress", daemon=True))
        try:
            yield
        finally:
            ended.set()


def _follow(results: StoredResults, message: Message[Any], ended: threading.Event, update: Callable[..., None]) -> None:
    """Update the bar until the message has `ended`."""
    while not ended.wait(ASK_EVERY):
        try:
            update(**shown(results.status(WantedResult(message.id, message.first_sent))))
        except (ResultStoreError, ConfigError):
            update(description=UNREADABLE)


def shown(status: Status) -> dict[str, Any]:
    """Return what the bar shows of a status, as arguments of rich's `Progress.update`."""
    progress = status.progress
    state = "waits" if status.state == "pending" else status.state
    if progress is None:
        return {"description": state}
    text = printable(progress.note)[:MAX_NOTE] or state
    return {"description": text, "completed": progress.done, "total": progress.total}
