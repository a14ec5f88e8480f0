"""
The functions that a worker calls once a message is settled: the hooks of an app, and those of a task.

Decides which functions can be hooks; `worker.hook_calls` decides which of them are called, and with what.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar

from amqpworker.errors import ConfigError
from amqpworker.text import name_of

if TYPE_CHECKING:
    from amqpworker.model.dead_letter import DeadLetter
    from amqpworker.model.retried import Retried
    from amqpworker.worker.context import Run

HookKind: TypeAlias = Literal["on_success", "on_retry", "on_dead"]
Hook: TypeAlias = Callable[..., object]

ARGUMENTS: dict[HookKind, tuple[str, ...]] = {
    "on_success": ("run", "value"),
    "on_retry": ("retried",),
    "on_dead": ("letter",),
}

SuccessHook = TypeVar("SuccessHook", bound="Callable[[Run, Any], object]")
RetryHook = TypeVar("RetryHook", bound="Callable[[Retried], object]")
DeadHook = TypeVar("DeadHook", bound="Callable[[DeadLetter], object]")


@dataclass(slots=True)
class Hooks:
    """The hooks of an app or of a task, by kind, in the order in which they were added."""

    on_success: list[Hook] = field(default_factory=list)
    on_retry: list[Hook] = field(default_factory=list)
    on_dead: list[Hook] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.on_success or self.on_retry or self.on_dead)

    def of(self, kind: HookKind) -> list[Hook]:
        """Return those of one kind."""
        found: list[Hook] = getattr(self, kind)
        return found

    def add(self, kind: HookKind, hook: Hook) -> None:
        """Add a hook; raises ConfigError if it is not a function with the arguments of this kind."""
        _check(kind, hook)
        self.of(kind).append(hook)


class HookDecorators:
    """The decorators of an `App` and of a task that add hooks; each returns the function as it is."""

    hooks: Hooks

    def on_success(self, hook: SuccessHook) -> SuccessHook:
        """
        Have workers call `hook(run, value)` for each message whose task has returned `value`.

        `run` is what `current()` returns in the task. As all hooks, it is `def` or `async def`, is called in a worker process
        after the message is acknowledged, at most once, and has 10 s; what it raises is logged and changes nothing. Of a
        message, the hooks of its task are called before those of the app (docs/failure.md).

        Raises:
            ConfigError: it is not a function of two arguments.

        Example:
            @app.on_success
            def count(run: Run, value: object) -> None: ...
        """
        self.hooks.add("on_success", hook)
        return hook

    def on_retry(self, hook: RetryHook) -> RetryHook:
        """
        Have workers call `hook(retried)` for each run that has failed, and whose message is run again after a delay.

        Raises:
            ConfigError: it is not a function of one argument.

        Example:
            @app.on_retry
            def note(retried: Retried) -> None: ...
        """
        self.hooks.add("on_retry", hook)
        return hook

    def on_dead(self, hook: DeadHook) -> DeadHook:
        """
        Have workers call `hook(letter)` for each dead letter that they have put into a dead-letter queue.

        Not for those of the broker itself, such as messages that were delivered too often.

        Raises:
            ConfigError: it is not a function of one argument.

        Example:
            @app.on_dead
            async def alert(letter: DeadLetter) -> None: ...
        """
        self.hooks.add("on_dead", hook)
        return hook


def _check(kind: HookKind, hook: Any) -> None:
    arguments = ", ".join(ARGUMENTS[kind])
    wanted = f"write it above a function of ({arguments}), without parentheses"
    if not callable(hook):
        raise ConfigError(f"{kind}({hook!r:.60}): {wanted}.")
    if inspect.isgeneratorfunction(hook) or inspect.isasyncgenfunction(hook):
        raise ConfigError(f"{kind}({name_of(hook)}): it has a yield, so that a call of it would run nothing.")
    try:
        inspect.signature(hook).bind(*ARGUMENTS[kind])
    except TypeError as error:
        raise ConfigError(f"{kind}({name_of(hook)}): it must accept ({arguments}): {error}.") from error
    except ValueError:
        return  # a callable written in C, which does not show its arguments
