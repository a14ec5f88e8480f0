"""Hooks of an app and of a task: what they get, and which functions can be hooks."""

from __future__ import annotations

from typing import assert_type

from amqpworker import App, DeadLetter, Retried, Run

app = App()


@app.task
def pay(order: str) -> int:
    return len(order)


@pay.on_success
def paid(run: Run, value: int) -> None:
    assert_type(run.id, str)


@app.on_success
async def done(run: Run, value: object) -> None: ...


@app.on_retry
def again(retried: Retried) -> None:
    assert_type(retried.run, Run)
    assert_type(retried.delay, float)
    assert_type(retried.error, str)


@pay.on_dead
async def died(letter: DeadLetter) -> str:
    return letter.reason


def of_nothing() -> None: ...


app.on_dead(of_nothing)  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]
app.on_success(again)  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]
