"""The code of docs/asyncio.md, run as it is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from amqpworker import App
from amqpworker.testing import running_worker
from tests.docs import ROOT, blocks


def test_the_code_of_the_page_runs(make_app: Callable[..., App]) -> None:
    app = make_app()

    @app.task(name="welcome", queue="work", retry=None)
    def send_welcome(user_id: int) -> str:
        return str(user_id)

    @app.task(name="quote", queue="work", retry=None)
    def quote(article: str) -> float:
        return float(len(article))

    (code,) = blocks(ROOT / "docs/asyncio.md", "python")
    names: dict[str, Any] = {"app": app, "send_welcome": send_welcome, "quote": quote, "AsyncIterator": AsyncIterator}
    names["asynccontextmanager"] = asynccontextmanager
    exec(code, names)

    async def rows() -> AsyncIterator[int]:
        for number in range(20):
            yield number

    async def run() -> tuple[str, float, int]:
        async with names["lifespan"](None):
            return await names["sign_up"](42), await names["price"]("a pen"), await names["import_users"](rows())

    with running_worker(app, threads=2):
        sent, price, imported = asyncio.run(run())
    assert (len(sent) > 0, price, imported) == (True, 5.0, 20)
