"""
What a task's parameters are: their names, kinds and type hints, read once at decoration.

Decides which functions can be tasks and resolves hints written as text.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from inspect import Parameter
from types import FrameType, FunctionType, SimpleNamespace
from typing import Any, ParamSpec, ParamSpecArgs, ParamSpecKwargs, Self, Unpack

import typing_extensions

from amqpworker.errors import ConfigError

BY_POSITION = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
BY_KEYWORD = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
RETURN = "return"
NO_OBJECT = "a message does not carry its object. Make a task of a plain function that creates or imports the object."


@dataclass(frozen=True, slots=True)
class Parameters:
    """
    What a function takes and returns.

    `parameters` has every parameter in order, `*rest` as a list of its hint and `**extra` as an object of it.
    """

    hints: dict[str, Any]
    returns: Any
    defaults: dict[str, Any]
    positional: tuple[str, ...]
    positional_only: tuple[str, ...]
    keywords: frozenset[str]
    rest: str | None
    extra: str | None

    @property
    def optional(self) -> frozenset[str]:
        """The parameters that a message may leave out."""
        return frozenset(self.defaults) | {name for name in (self.rest, self.extra) if name is not None}


def read_parameters(function: Callable[..., Any], task: str, inject: Sequence[str] = ()) -> Parameters:
    """
    Read what a function takes and returns, without the parameters that its decorator passes (`inject`).

    Raises ConfigError if it, or one of its hints, cannot be a task's.
    """
    _check_kind(function, task)
    declared = inspect.signature(function).parameters
    _check_injected(function, declared, inject, task)
    parameters = [parameter for name, parameter in declared.items() if name not in inject]
    _check_first(parameters, task)
    hints = _resolve(function, task, inject)
    for name, hint in hints.items():
        _check_hint(hint, named(task, name))
    return Parameters(
        hints={parameter.name: _carried(parameter, hints.get(parameter.name, Any)) for parameter in parameters},
        returns=hints.get(RETURN, Any),
        defaults={p.name: p.default for p in parameters if p.default is not Parameter.empty},
        positional=tuple(p.name for p in parameters if p.kind in BY_POSITION),
        positional_only=tuple(p.name for p in parameters if p.kind is Parameter.POSITIONAL_ONLY),
        # The injected ones too, so that `**extra` does not accept their names.
        keywords=frozenset(p.name for p in declared.values() if p.kind in BY_KEYWORD),
        rest=next((p.name for p in parameters if p.kind is Parameter.VAR_POSITIONAL), None),
        extra=next((p.name for p in parameters if p.kind is Parameter.VAR_KEYWORD), None),
    )


def named(task: str, name: str) -> str:
    """Return what errors call a parameter, or the return value, of a task."""
    return f"Task {task!r}: the return value" if name == RETURN else f"Task {task!r}: parameter {name!r}"


def _check_kind(function: Any, task: str) -> None:
    if isinstance(function, staticmethod):
        raise ConfigError(f"Task {task!r} is a staticmethod: put @staticmethod above the task decorator.")
    if inspect.ismethod(function) and not inspect.isclass(function.__self__):
        raise ConfigError(f"Task {task!r} is a method of an object: {NO_OBJECT}")
    if not (inspect.isfunction(function) or inspect.ismethod(function)):
        kind = "class" if inspect.isclass(function) else type(function).__name__
        raise ConfigError(f"Task {task!r} is a {kind}: make a task of a plain function.")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise ConfigError(f"Task {task!r} is a generator: a task returns one value, it does not yield.")


def _check_injected(
    function: Callable[..., Any], declared: Mapping[str, Parameter], inject: Sequence[str], task: str
) -> None:
    """Refuse a name that is not a parameter of the function, or that nothing can pass."""
    for name in inject:
        if name not in list(declared) or declared[name].kind in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD):
            raise ConfigError(
                f"Task {task!r} has no parameter {name!r} to inject, it has {', '.join(declared) or 'none'}: check the name, and "
                "that the decorator which passes it uses functools.wraps."
            )
        is_passed = hasattr(function, "__wrapped__")
        if declared[name].default is Parameter.empty and not is_passed:
            raise ConfigError(
                f"Task {task!r}: nothing passes the injected parameter {name!r}: put a decorator that passes it below the "
                "task decorator."
            )
        is_first = name == next(iter(declared))
        if _takes_more_by_position(declared, name) and not (is_first and is_passed):
            raise ConfigError(
                f"Task {task!r}: an argument by position would get into the injected parameter {name!r}: make it a keyword-only "
                "parameter."
            )


def _takes_more_by_position(declared: Mapping[str, Parameter], name: str) -> bool:
    """Return whether arguments that can be passed by position only follow a parameter that can be passed by position."""
    if declared[name].kind is Parameter.KEYWORD_ONLY:
        return False
    following = list(declared.values())[list(declared).index(name) + 1 :]
    return any(one.kind in (Parameter.POSITIONAL_ONLY, Parameter.VAR_POSITIONAL) for one in following)


def _check_first(parameters: list[Parameter], task: str) -> None:
    """Refuse a method: its first parameter, `self` or `cls`, has no type hint."""
    if not parameters:
        return
    first = parameters[0]
    if first.name in ("self", "cls") and first.annotation is Parameter.empty:
        celery = " What Celery passes as self is returned by current()." if first.name == "self" else ""
        raise ConfigError(f"{named(task, first.name)} has no type hint, as in a method: {NO_OBJECT}{celery}")


def _resolve(function: Callable[..., Any], task: str, inject: Sequence[str]) -> dict[str, Any]:
    """Resolve the hints one by one, so that an error can name the parameter."""
    inner: Any = inspect.unwrap(function)
    written = {name: hint for name, hint in inner.__annotations__.items() if name not in inject}
    names = _names_around(inner) if any(isinstance(hint, str) for hint in written.values()) else {}
    hints = {}
    for name, hint in written.items():
        try:
            holder = SimpleNamespace(__annotations__={name: hint})
            hints[name] = typing.get_type_hints(holder, inner.__globals__, names, include_extras=True)[name]
        except NameError as error:
            raise ConfigError(
                f"{named(task, name)} has the hint {hint!r}, but {error.name!r} is not defined in its module."
                " A hint must exist when the program runs, not only for the type checker."
            ) from error
        except Exception as error:
            raise ConfigError(f"{named(task, name)} has a hint that cannot be read: {hint!r} ({error}).") from error
    return hints


def _names_around(function: FunctionType) -> dict[str, Any]:
    """Return the names that a hint inside another function may use: type parameters, its closure, the locals there."""
    names = {parameter.__name__: parameter for parameter in getattr(function, "__type_params__", ())}
    outer, found, _ = function.__qualname__.rpartition(".<locals>.")
    if found:
        here = next((frame for frame in _stack() if frame.f_code.co_qualname == outer), None)
        if here is not None and here.f_globals is function.__globals__:
            names.update(here.f_locals)
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        with suppress(ValueError):  # a function that names itself has an empty cell while it is being decorated
            names[name] = cell.cell_contents
    return names


def _stack() -> Iterator[FrameType]:
    frame = inspect.currentframe()
    while frame is not None:
        yield frame
        frame = frame.f_back


def _check_hint(hint: Any, what: str) -> None:
    """Refuse what pydantic would accept and carry wrongly."""
    if isinstance(hint, ParamSpec | ParamSpecArgs | ParamSpecKwargs):
        raise ConfigError(f"{what} is a ParamSpec, the parameters of another function: write them out.")
    if hint in (Self, typing_extensions.Self):
        raise ConfigError(f"{what} has the hint Self: name the class.")
    if typing.get_origin(hint) is Unpack:
        raise ConfigError(f"{what} is unpacked from another type: write its parameters out.")
    for part in typing.get_args(hint):
        if not isinstance(part, list):
            _check_hint(part, what)


def _carried(parameter: Parameter, hint: Any) -> Any:
    if parameter.kind is Parameter.VAR_POSITIONAL:
        return list[hint]
    if parameter.kind is Parameter.VAR_KEYWORD:
        return dict[str, hint]
    return hint
