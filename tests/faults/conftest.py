"""Apps on the test's virtual host, as the tests of sending and working have them, and the two carriers of coroutines."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from amqpworker import App
from tests.integration.conftest import app, make_app, make_client

__all__ = ["Run", "app", "make_app", "make_client", "run"]

Run = Callable[[App, Coroutine[Any, Any, Any]], Any]


async def _entered(app: App, coroutine: Coroutine[Any, Any, Any]) -> Any:
    async with app:
        return await coroutine


def by_thread(_: App, coroutine: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(coroutine)


def by_aio_pika(app: App, coroutine: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(_entered(app, coroutine))


@pytest.fixture(params=[by_thread, by_aio_pika], ids=lambda one: one.__name__)
def run(request: pytest.FixtureRequest) -> Run:
    """Run a coroutine in a loop that has entered the app, or that has not."""
    function: Run = request.param
    return function
