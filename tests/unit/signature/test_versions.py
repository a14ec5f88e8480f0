"""Versions of a task's parameters: which are valid, and what an upgrade makes of older arguments."""

from __future__ import annotations

from typing import Any

import pytest

from amqpworker.errors import ConfigError
from amqpworker.signature.versions import MAX_VERSION, UpgradeFailed, check_version, upgraded


def rename(version: int, arguments: dict[str, Any]) -> dict[str, Any]:
    if version < 2:
        arguments["user_id"] = arguments.pop("uid")
    return arguments


def upgrade(body: bytes, function: Any = rename, version: int = 1) -> bytes:
    return upgraded("shop.welcome", function, version, body)


@pytest.mark.parametrize("version", [1, 2, MAX_VERSION])
def test_a_version_is_a_whole_number_from_one(version: int) -> None:
    assert check_version(version) == version


@pytest.mark.parametrize("version", [0, -1, True, 1.0, "2", None, MAX_VERSION + 1])
def test_another_version_is_refused(version: Any) -> None:
    with pytest.raises(ConfigError, match=r"task\(version=.*whole number from 1"):
        check_version(version)


async def asynchronous(version: int, arguments: dict[str, Any]) -> dict[str, Any]:
    return arguments


@pytest.mark.parametrize("function", ["rename", asynchronous])
def test_an_upgrade_is_a_function(function: Any) -> None:
    with pytest.raises(ConfigError, match=r"task\(upgrade=.*must be a function, not a coroutine function"):
        check_version(2, function)


def test_an_upgrade_to_the_first_version_is_refused() -> None:
    with pytest.raises(ConfigError, match="no version before 1; give the task version=2"):
        check_version(1, rename)


def test_an_upgrade_gets_the_version_and_the_arguments_of_a_message() -> None:
    assert upgrade(b'{"uid": 42, "lang": "fr"}') == b'{"lang":"fr","user_id":42}'
    assert upgrade(b'{"user_id": 42}', version=2) == b'{"user_id":42}'


@pytest.mark.parametrize("body", [b"[]", b"5", b"{", b"", b"\xff"])
def test_a_body_that_is_not_an_object_is_left_for_the_task_to_refuse(body: bytes) -> None:
    assert upgrade(body) == body


def raises(version: int, arguments: dict[str, Any]) -> dict[str, Any]:
    raise LookupError(f"{version} {arguments}")


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (raises, "its upgrade from version 1 failed"),
        (lambda _version, _arguments: None, "returned a NoneType: return the arguments as a dict"),
        (lambda _version, _arguments: {"a": object()}, "cannot be written as JSON"),
    ],
)
def test_an_upgrade_that_fails_is_named_with_its_task(function: Any, text: str) -> None:
    with pytest.raises(UpgradeFailed, match=rf"Task 'shop\.welcome': .*{text}"):
        upgrade(b"{}", function)
