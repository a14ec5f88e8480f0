"""Tasks that tests send; their code is nowhere, unless a test runs it."""

from __future__ import annotations

from collections.abc import Iterator

from amqpworker import App, Message
from amqpworker.task import RemoteTask

QUEUE = "work"


def echo_of(app: App, queue: str = QUEUE) -> RemoteTask[[str], str]:
    """Describe a task that returns its text."""

    @app.remote(name="test.echo", queue=queue)
    def echo(text: str) -> str: ...

    return echo


def another_of(app: App, queue: str = QUEUE) -> RemoteTask[[], None]:
    """Describe a second task."""

    @app.remote(name="test.another", queue=queue)
    def another() -> None: ...

    return another


def messages(task: RemoteTask[[str], str], count: int, text: str = "x") -> Iterator[Message]:
    """Yield so many messages."""
    return (task.message(text) for _ in range(count))
