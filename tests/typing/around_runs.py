"""What surrounds runs: middleware, a lifespan, and the run itself."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from typing import assert_type

from amqpworker import App, Run, current


@contextmanager
def traced(run: Run) -> Generator[None]:
    assert_type(run.attempt, int)
    assert_type(run.task, str)
    yield


@asynccontextmanager
async def with_session(run: Run) -> AsyncGenerator[str]:
    yield run.id


@asynccontextmanager
async def lifespan() -> AsyncGenerator[None]:
    yield


def not_a_context_manager(run: Run) -> None: ...


@contextmanager
def without_a_run() -> Generator[None]:
    yield


right = App(middleware=[traced, with_session], lifespan=lifespan)
App(middleware=[not_a_context_manager])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
App(middleware=[without_a_run])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
App(middleware=traced)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
App(lifespan=traced)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


@right.task
def reads_its_run() -> int:
    assert_type(current(), Run)
    return current().attempt
