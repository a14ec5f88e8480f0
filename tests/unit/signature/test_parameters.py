from __future__ import annotations

import functools
import sys
import typing
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Annotated, Any, Literal, Self

import pytest
import typing_extensions
from pydantic import AliasChoices, AliasPath, BaseModel, Field, SecretStr

from amqpworker.errors import ConfigError
from amqpworker.signature.signature import UnknownParameter
from tests.unit.signature.signatures import (
    Colour,
    Mixed,
    Odd,
    OldRow,
    P,
    Point,
    Row,
    of,
    plain,
    returning,
    run,
    taking,
)


def leftover(*args: P.args, **kwargs: P.kwargs) -> None: ...


@pytest.mark.parametrize(
    ("hint", "text"),
    [
        (Callable[[int], int], "function"),
        (Callable, "function"),
        (list[Callable[..., None]], "function"),
        (Iterator[int], "has no JSON"),
        (Iterable[int], "iterator"),
        (typing.Generator[int, None, None], "iterator"),
        (AsyncIterator[int], "has no JSON"),
        (type[int], "class"),
        (object().__class__ | Callable, "function"),
        (threading_lock := type(__import__("threading").Lock()), "has no JSON"),
        (dict[str, list[threading_lock]], "has no JSON"),
        (dict[tuple[int, int], str], "keys"),
        (dict[int | str, str], "keys"),
        (dict[str | None, str], "keys"),
        (dict[Literal[1, 2], str], "keys"),
        (dict[Mixed, int], "keys.*Enum"),
        (list[dict[Odd, int] | None], "keys.*Enum"),
        (Literal[Colour.RED], "Literal"),
        (Literal[b"x"], "Literal"),
        (SecretStr, "asterisks"),
        (list[SecretStr | None], "asterisks"),
        (Self, "Self"),
        (typing_extensions.Self, "Self"),
        (Annotated[int, Field(alias="q")], "alias"),
        (Annotated[int, Field(exclude=True)], "exclusion"),
        (P, "ParamSpec"),
        ("Missing", "'Missing'"),
        ("list[Missing]", "'Missing'"),
        ("1 +", "cannot be read"),
        (5, "hint"),
        (pytest.param(OldRow, "typing_extensions", marks=[]) if sys.version_info < (3, 12) else ("Missing", "Missing")),
    ],
)
def test_what_cannot_be_carried_fails_at_decoration_and_is_named(hint: Any, text: str) -> None:
    with pytest.raises(ConfigError, match=rf"^Task 'shop\.task': parameter 'p'.*{text}"):
        taking(hint)
    with pytest.raises(ConfigError, match=rf"^Task 'shop\.task': the return value.*{text}"):
        returning(hint)


def test_the_parameters_of_another_function_cannot_be_carried() -> None:
    with pytest.raises(ConfigError, match=r"'args'.*ParamSpec"):
        of(leftover)


def test_unpacked_parameters_must_be_written_out() -> None:
    def task(**row: typing.Unpack[Row]) -> None: ...

    with pytest.raises(ConfigError, match=r"'row'.*unpacked"):
        of(task)


def yielding(a: int) -> Iterator[int]:
    yield a


async def async_yielding(a: int) -> AsyncIterator[int]:
    yield a


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (yielding, "generator"),
        (async_yielding, "generator"),
        (Point, "class"),
        (staticmethod(plain), "staticmethod: put @staticmethod above the task decorator"),
        (classmethod(plain), "classmethod"),
        (functools.partial(plain, 1), "partial"),
        (len, "builtin"),
        (5, "int"),
    ],
)
def test_only_plain_functions_can_be_tasks(function: Any, text: str) -> None:
    with pytest.raises(ConfigError, match=rf"^Task 'shop\.task' is a.*{text}"):
        of(function)


def test_hints_may_name_what_surrounds_a_function() -> None:
    class Local(BaseModel):
        a: int

    def task(local: Local, again: list[Local]) -> Local:
        return again[0] if again else local

    def recursive(a: int) -> Local:
        return recursive(a)

    assert run(task, Local(a=1), [Local(a=2)]) == Local(a=2)
    assert of(recursive).decode_result(b'{"a": 1}') == Local(a=1)


def test_a_wrapped_function_keeps_its_parameters() -> None:
    @functools.wraps(plain)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return plain(*args, **kwargs)

    assert run(wrapper, 42, lang="fr") == "42 fr"


class Mailer:
    def send(self, user_id: int) -> int:
        return user_id

    @classmethod
    def create(cls, user_id: int) -> str:
        return f"{cls.__name__} {user_id}"


@functools.wraps(Mailer.send)
def wrapped_method(*args: Any) -> Any:
    return Mailer.send(*args)


def bound_as_in_celery(self, user_id: int) -> None: ...  # type: ignore[no-untyped-def]


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (Mailer.send, ": parameter 'self' has no type hint"),
        (vars(Mailer)["create"].__func__, ": parameter 'cls' has no type hint"),
        (wrapped_method, ": parameter 'self' has no type hint"),
        (bound_as_in_celery, ": parameter 'self' has no type hint"),
        (Mailer().send, " is a method of an object"),
    ],
)
def test_a_method_is_refused_since_a_message_does_not_carry_its_object(function: Any, text: str) -> None:
    with pytest.raises(ConfigError, match=rf"^Task 'shop\.task'{text}.*does not carry its object.*a plain function"):
        of(function)


def test_a_task_as_celery_binds_it_is_refused_with_the_name_of_what_replaces_self() -> None:
    with pytest.raises(ConfigError, match=r"What Celery passes as self is returned by current\(\)\.$"):
        of(bound_as_in_celery)


def test_functions_that_need_no_object_can_be_tasks_though_they_are_in_a_class() -> None:
    assert run(Mailer.create, 42) == "Mailer 42"

    class Mails:
        @staticmethod
        def send(user_id: int) -> int:
            return user_id

    assert run(Mails.send, 42) == 42


def test_a_first_parameter_with_a_hint_is_an_argument_like_any_other() -> None:
    def task(self: str) -> str:
        return self

    assert run(task, "me") == "me"


def test_models_that_hold_what_cannot_be_carried_fail_at_decoration_too() -> None:
    class Holder(BaseModel):
        call: Callable[[], None]

    with pytest.raises(ConfigError, match=r"'p'.*function"):
        taking(Holder)


# ---- older names of parameters --------------------------------------------------------------------------------------


def renamed(
    user_id: Annotated[int, Field(validation_alias=AliasChoices("user_id", "uid", "user"))],
    lang: Annotated[str, Field(validation_alias=AliasChoices("lang", "language"))] = "en",
) -> None: ...


def test_a_parameter_is_read_by_its_older_names_too_and_sent_by_its_own() -> None:
    signature = of(renamed)
    assert signature.encode((1,), {"lang": "fr"}) == b'{"user_id":1,"lang":"fr"}'
    for body in (b'{"user_id": 1}', b'{"uid": 1}', b'{"user": 1}'):
        assert signature.decode(body).kwargs == {"user_id": 1}
    assert signature.decode(b'{"uid": 1, "language": "fr"}').kwargs == {"user_id": 1, "lang": "fr"}
    assert signature.aliases == {"uid": "user_id", "user": "user_id", "language": "lang"}


def test_a_large_body_is_read_by_older_names_too() -> None:
    text = "x" * (1 << 20)
    assert of(renamed).decode(b'{"uid": 1, "language": "%b"}' % text.encode()).kwargs == {"user_id": 1, "lang": text}


@pytest.mark.parametrize("body", [b'{"user_id": 1, "uid": 1}', b'{"uid": 1, "id": 2}', b'{"id": 1}'])
def test_a_parameter_more_than_these_is_unknown(body: bytes) -> None:
    with pytest.raises(UnknownParameter, match=r"there is no parameter '(uid|id)'"):
        of(renamed).decode(body)


@pytest.mark.parametrize(
    "alias", ["uid", AliasChoices("uid", "p"), AliasChoices("p", AliasPath("a", "b")), AliasPath("p", "a")]
)
def test_an_alias_by_which_a_parameter_would_not_be_sent_is_refused(alias: Any) -> None:
    with pytest.raises(ConfigError, match=r"own name.*validation_alias=AliasChoices\('p', 'older_name'\)"):
        taking(Annotated[int, Field(validation_alias=alias)])


def test_an_older_name_belongs_to_one_parameter() -> None:
    older = Annotated[int, Field(validation_alias=AliasChoices("a", "b"))]

    def takes_both(a: older, b: int) -> None: ...

    with pytest.raises(ConfigError, match="'a' has the older name 'b', which another parameter has"):
        of(takes_both)
