"""Which functions can be hooks of an app or a task."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from amqpworker import App, ConfigError, DeadLetter, Retried, Run
from tests.docs import ROOT, blocks


def test_a_decorator_returns_the_function_and_the_hooks_are_called_in_the_order_in_which_they_were_added() -> None:
    app = App()

    def first(letter: DeadLetter) -> None: ...

    async def second(letter: DeadLetter, note: str = "") -> None: ...

    assert app.on_dead(first) is first
    assert app.on_dead(second) is second
    assert app.hooks.of("on_dead") == [first, second]
    assert not app.hooks.of("on_retry")


def test_a_task_has_hooks_of_its_own() -> None:
    app = App()

    @app.task(name="shop.pay")
    def pay() -> int:
        return 1

    @pay.on_success
    def done(run: Run, value: int) -> None: ...

    @pay.on_retry
    def again(retried: Retried) -> None: ...

    assert (pay.hooks.on_success, pay.hooks.on_retry, pay.hooks.on_dead) == ([done], [again], [])
    assert not app.hooks
    assert pay.hooks


def none() -> None: ...


def two(letter: DeadLetter, why: str) -> None: ...


def letters(letter: DeadLetter) -> Iterator[DeadLetter]:
    yield letter


@pytest.mark.parametrize(
    ("hook", "told"),
    [
        (5, r"on_dead\(5\): write it above a function of \(letter\), without parentheses"),
        (none, r"none\): it must accept \(letter\): too many positional arguments"),
        (two, r"it must accept \(letter\): missing a required argument: 'why'"),
        (letters, "it has a yield"),
    ],
)
def test_what_cannot_be_called_with_a_letter_is_refused_when_it_is_added(hook: Any, told: str) -> None:
    app = App()
    with pytest.raises(ConfigError, match=told):
        app.on_dead(hook)
    assert not app.hooks


class Counter:
    def count(self, run: Run, value: object) -> None: ...


@pytest.mark.parametrize("hook", [Counter().count, lambda *_: None, partial(print, "done"), print, dict])
def test_whatever_can_be_called_with_a_run_and_its_value_is_a_hook(hook: Callable[..., object]) -> None:
    app = App()
    assert app.on_success(hook) is hook


def test_the_hooks_on_the_page_can_be_added() -> None:
    names: dict[str, Any] = {"__name__": "shop"}
    exec(blocks(ROOT / "docs/failure.md", "python")[0], names)
    app = names["app"]
    assert (app.hooks.on_dead, app.hooks.on_retry) == ([names["alert"]], [names["note"]])
    assert names["charge"].hooks.on_success == [names["charged"]]
