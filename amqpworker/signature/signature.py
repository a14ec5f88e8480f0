"""
What a task takes and returns, as a message carries it.

The call that a producer makes becomes a JSON object with one key per parameter, and that object becomes the same call
in a worker. Decides which argument belongs to which parameter. Both sides check values by the same code, so a wrong
argument fails in the service that sends it. If a key occurs twice in a body, the last one counts.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from pydantic import ValidationError
from pydantic_core import from_json

from amqpworker.errors import InvalidArguments, InvalidResult, TimeLimitExceeded
from amqpworker.signature.parameters import RETURN, Parameters, read_parameters
from amqpworker.signature.schema import schema_of, schema_of_value
from amqpworker.signature.serializer import LARGE, ValueSerializer, explain, has_unknown_keys, not_json


class MalformedBody(InvalidArguments):
    """A message's body is not a JSON object, or one of its numbers is NaN or infinite."""


class UnknownParameter(InvalidArguments):
    """A message has a parameter, or a field inside one, that the task does not have: newer code may have sent it."""


class Call(NamedTuple):
    """The arguments of one run: `function(*call.args, **call.kwargs)`."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class Signature:
    """Writes and reads a task's calls and results; built once, at decoration."""

    __slots__ = ("_arguments", "_parameters", "_positional", "_result", "_simple", "is_async", "name")

    def __init__(self, name: str, is_async: bool, parameters: Parameters) -> None:
        self.name = name
        self.is_async = is_async
        self._parameters = parameters
        self._positional = parameters.positional
        self._simple = not (parameters.positional_only or parameters.rest or parameters.extra)
        self._arguments = ValueSerializer(schema_of(parameters.hints, parameters.optional, name))
        self._result = ValueSerializer(schema_of_value(parameters.returns, RETURN, name))

    @classmethod
    def of(cls, function: Callable[..., Any], name: str, inject: Sequence[str] = ()) -> Signature:
        """
        Return the signature of a function that is to be a task, without the parameters that its decorator passes (`inject`).

        Raises ConfigError if that cannot be.
        """
        return cls(name, inspect.iscoroutinefunction(function), read_parameters(function, name, inject))

    if not TYPE_CHECKING:

        def __call__(self, *_: object, **__: object) -> None:
            """Refuse what Celery does by `task.signature(…)`."""
            raise TypeError(f"Task {self.name!r} has no method 'signature': use .message(…), which app.send takes.")

    @property
    def hints(self) -> Mapping[str, Any]:
        """The type hint of each parameter."""
        return self._parameters.hints

    @property
    def optional(self) -> AbstractSet[str]:
        """The parameters that a message may leave out."""
        return self._parameters.optional

    @property
    def defaults(self) -> Mapping[str, Any]:
        """The values of parameters that a call may leave out, by their names."""
        return self._parameters.defaults

    @property
    def aliases(self) -> Mapping[str, str]:
        """The older names of parameters, each with its present one."""
        return self._arguments.aliases

    @property
    def returns(self) -> Any:
        """The type hint of what the task returns."""
        return self._parameters.returns

    def encode(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
        """
        Return the body of a message that makes this call: a key for each parameter that was given.

        Raises InvalidArguments if they do not fit; its text names the parameter and never contains a value.
        """
        values = dict(zip(self._positional, args, strict=False))
        if kwargs:
            values.update(kwargs)
        # Too many positional arguments were cut off, and an argument given twice has one key: in both cases there are fewer
        # values than arguments. The serializer refuses a name that does not exist.
        if not self._simple or len(values) != len(args) + len(kwargs):
            values = self._gather(args, kwargs)
        try:
            return self._arguments.write(values)
        except TimeLimitExceeded:
            raise  # of the task that this is called in
        except Exception as error:  # noqa: BLE001 - validators and values may raise anything
            raise InvalidArguments(f"Task {self.name!r}: {self._explain_arguments(error, values)}.") from None

    def decode(self, body: bytes) -> Call:
        """
        Return the call that is in a message's body.

        Raises InvalidArguments: MalformedBody if it is not an object, UnknownParameter if it has more than the task knows.
        """
        try:
            if len(body) > LARGE:
                self._refuse_unknown_keys(body)
            values = self._arguments.read(body)
        except InvalidArguments:
            raise
        except Exception as error:  # noqa: BLE001 - validators may raise anything
            self._refuse(error, body)
        return Call((), values) if self._simple else self._arrange(values)

    def arguments(self, body: bytes) -> Mapping[str, Any]:
        """Return the arguments that are in a message's body, by their keys; raises as `decode` does."""
        try:
            values: Mapping[str, Any] = self._arguments.read(body)
        except Exception as error:  # noqa: BLE001 - validators may raise anything
            self._refuse(error, body)
        return values

    def encode_result(self, value: Any) -> bytes:
        """Return a returned value as JSON; raises InvalidResult if it does not fit the return hint."""
        try:
            return self._result.write(value)
        except Exception as error:  # noqa: BLE001 - validators and values may raise anything
            raise InvalidResult(self._invalid_result(error)) from None

    def decode_result(self, data: bytes) -> Any:
        """Return what the task returned, as its return hint has it; raises InvalidResult if the JSON is not that."""
        try:
            return self._result.read(data)
        except TimeLimitExceeded:
            raise  # of the task that this is called in
        except Exception as error:  # noqa: BLE001 - validators may raise anything
            raise InvalidResult(self._invalid_result(error)) from None

    def _gather(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Return each argument by its key, bound as the function would bind it."""
        known = self._parameters
        values = dict(zip(known.positional, args, strict=False))
        if len(args) > len(known.positional):
            if known.rest is None:
                most = len(known.positional)
                raise self._invalid(f"{len(args)} positional arguments were given, and it takes at most {most}")
            values[known.rest] = args[len(known.positional) :]
        extra = {}
        for name, value in kwargs.items():
            if name not in known.keywords:
                extra[name] = value
            elif name in values:
                raise self._invalid(f"parameter {name!r} was given twice")
            else:
                values[name] = value
        if extra and known.extra is None:
            name = next(iter(extra))
            by_position = "is given by position only" if name in known.positional_only else "does not exist"
            raise self._invalid(f"parameter {name!r} {by_position}")
        if extra and known.extra is not None:
            values[known.extra] = extra
        return values

    def _arrange(self, values: dict[str, Any]) -> Call:
        """Return the call that `_gather` was given."""
        known = self._parameters
        extra = values.pop(known.extra, {}) if known.extra else {}
        rest = values.pop(known.rest, []) if known.rest else []
        by_position = known.positional if rest else known.positional_only
        args = [values.pop(name) if name in values else known.defaults[name] for name in by_position]
        for name in extra:
            if name in known.keywords:
                raise self._invalid(f"parameter {name!r} is given inside {known.extra!r}")
        return Call((*args, *rest), values | extra)

    def _refuse_unknown_keys(self, body: bytes) -> None:
        """Refuse a large body by its first unknown key: pydantic would make an error of each."""
        try:
            found = from_json(body)
        except ValueError:
            return  # reading it raises the error that fits
        known = self._parameters.hints.keys() | self._arguments.aliases.keys()
        unknown = found.keys() - known if isinstance(found, dict) else ()
        if unknown:
            raise UnknownParameter(f"Task {self.name!r}: there is no parameter {next(iter(unknown))[:60]!r}.")

    def _refuse(self, error: Exception, body: bytes) -> NoReturn:
        malformed = not_json(error, body)
        if malformed is not None:
            raise MalformedBody(f"Task {self.name!r}: {malformed}.") from None
        kind = UnknownParameter if has_unknown_keys(error) else InvalidArguments
        raise kind(f"Task {self.name!r}: {explain(error, self._arguments.names)}.") from None

    def _explain_arguments(self, error: Exception, values: dict[str, Any]) -> str:
        """Find the parameter that an error came from, which only pydantic's own errors name."""
        if not isinstance(error, ValidationError):
            for name, value in values.items():
                try:
                    ValueSerializer(schema_of_value(self._parameters.hints[name], name, self.name)).write(value)
                except TimeLimitExceeded:
                    raise
                except Exception as found:  # noqa: BLE001 - as in encode
                    return explain(found, self._arguments.names, f"parameter {name!r}")
            plural = "s" if len(values) > 1 else ""
            return explain(error, self._arguments.names, f"parameter{plural} {', '.join(map(repr, values))}")
        return explain(error, self._arguments.names)

    def _invalid_result(self, error: Exception) -> str:
        return f"Task {self.name!r}: {explain(error, self._result.names, 'the return value')}."

    def _invalid(self, problem: str) -> InvalidArguments:
        return InvalidArguments(f"Task {self.name!r}: {problem}.")
