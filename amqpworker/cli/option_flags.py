"""Makes the options of a command from the fields of models: flag, type, bounds, default and help are those of the field."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any, Literal, get_args, get_origin

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from amqpworker.worker.options import Flag


def takes_options_of(*models: type[BaseModel]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorate a command: in place of its `**given`, it takes an option for each field that has a `Flag`."""

    def decorated(command: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(command, eval_str=True).parameters.values()
        made = [_parameter(name, field, flag) for model in models for name, field, flag in flagged(model)]
        positional = [parameter for parameter in own if parameter.kind == parameter.POSITIONAL_OR_KEYWORD]
        keywords = [parameter for parameter in own if parameter.kind == parameter.KEYWORD_ONLY]
        command.__signature__ = inspect.Signature([*positional, *made, *keywords])  # type: ignore[attr-defined]
        return command

    return decorated


def flagged(model: type[BaseModel]) -> Iterator[tuple[str, FieldInfo, Flag]]:
    """Yield the fields of a model that have a flag."""
    for name, field in model.model_fields.items():
        for flag in field.metadata:
            if isinstance(flag, Flag):
                yield name, field, flag


def flags_of(name: str, flag: Flag) -> tuple[str, ...]:
    """Return the flags of a field, the long one last."""
    return flag.names or (f"--{name.replace('_', '-')}",)


def _parameter(name: str, field: FieldInfo, flag: Flag) -> inspect.Parameter:
    default = None if flag.unset else field.default
    option = typer.Option(
        int(default) if isinstance(default, float) and default.is_integer() else default,  # shown as 60, not 60.0
        *flags_of(name, flag),
        min=_bound(field, "ge"),
        max=_bound(field, "le"),
        metavar=flag.metavar,
        help=field.description,
        show_default=flag.unset or field.default is not None,
    )
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=option, annotation=_type_of(field))


def _bound(field: FieldInfo, which: str) -> Any:
    return next((getattr(bound, which) for bound in field.metadata if hasattr(bound, which)), None)


def _type_of(field: FieldInfo) -> Any:
    """Return the type as which a command reads a field; the model checks the rest."""
    if get_origin(field.annotation) is tuple:
        return list[str]
    kinds = {field.annotation, *get_args(field.annotation)}
    if any(get_origin(kind) is Literal for kind in kinds):
        return str
    return next((kind for kind in (bool, int, float) if kind in kinds), str)
