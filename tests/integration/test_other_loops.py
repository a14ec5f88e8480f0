"""Where no event loop of asyncio runs, as under trio: every method for coroutines is refused at once, with the reason."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import trio

from amqpworker import App, ConfigError
from tests.integration.tasks import echo_of, messages

MakeApp = Callable[..., App]

REASON = (
    "No event loop of asyncio runs here: amqpworker's methods for coroutines do not work in trio or without a loop. "
    "Use send() and call() in a thread instead."
)


def in_trio(function: Callable[[], Coroutine[Any, Any, Any]]) -> None:
    trio.run(function)


def by_hand(function: Callable[[], Coroutine[Any, Any, Any]]) -> None:
    function().send(None)


@pytest.mark.parametrize("run", [in_trio, by_hand])
def test_every_method_for_coroutines_is_refused_without_an_event_loop_of_asyncio(
    make_app: MakeApp, tmp_path: Path, run: Callable[..., None]
) -> None:
    app = make_app(results=f"sqlite:///{tmp_path / 'results.db'}")
    echo = echo_of(app)
    sent = echo.send("x")

    async def enter() -> None:
        async with app:
            raise AssertionError("it was entered")

    async def iterate() -> None:
        async for _ in app.asend_each(messages(echo, 2)):
            raise AssertionError("it was sent")

    methods: list[Callable[[], Coroutine[Any, Any, Any]]] = [
        lambda: echo.asend("x"),
        lambda: echo.acall("x"),
        lambda: app.asend(echo.message("x")),
        lambda: app.acall(echo.message("x")),
        lambda: app.asend_many(messages(echo, 2)),
        app.acheck,
        app.aclose,
        app.__aexit__,
        sent.aresult,
        sent.astatus,
        enter,
        iterate,
    ]
    for method in methods:
        with pytest.raises(ConfigError) as refused:
            run(method)
        assert str(refused.value) == REASON
    assert app.producer.publisher.is_idle
