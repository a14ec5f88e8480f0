"""The code of docs/values.md, run as it is: a decorator that passes a database connection to a task."""

from __future__ import annotations

import functools
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from amqpworker import InvalidArguments
from amqpworker.testing import running_worker
from tests.docs import ROOT, blocks
from tests.support import Broker


def users() -> list[tuple[int, str]]:
    with closing(sqlite3.connect("shop.db")) as database:
        return database.execute("SELECT id, name FROM users ORDER BY id").fetchall()


def test_a_decorator_passes_a_connection_to_the_task_that_the_page_shows_and_to_a_coroutine(
    vhost: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AMQPWORKER_URL", vhost.url)
    with closing(sqlite3.connect("shop.db")) as database, database:
        database.execute("CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT)")
        database.execute("INSERT INTO users VALUES (42, 'Augusta'), (43, 'Charles')")

    code = blocks(ROOT / "docs/values.md", "python")[-1]
    names: dict[str, Any] = {"__name__": "shop"}
    exec(code, names)
    app, rename = names["app"], names["rename"]

    def with_words(function: Callable[..., Awaitable[str]]) -> Callable[..., Awaitable[str]]:
        @functools.wraps(function)
        async def wrapper(*args: Any, **kwargs: Any) -> str:
            return await function(*args, words=["good", "day"], **kwargs)

        return wrapper

    @app.task(name="greet", inject=("words",))
    @with_words
    async def greet(user_id: int, *, words: list[object]) -> str:
        return f"{' '.join(map(str, words))}, {user_id}"

    with app, running_worker(app, threads=2):
        assert rename.call(42, name="Ada") == 1
        assert rename.call(7, "nobody") == 0
        assert greet.call(42) == "good day, 42"
        with pytest.raises(InvalidArguments, match="there is no parameter 'database'"):
            rename.send(42, "Ada", database=None)
    assert rename(43, "Babbage") == 1
    assert users() == [(42, "Ada"), (43, "Babbage")]
