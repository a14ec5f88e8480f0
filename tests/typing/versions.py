"""The version of a task's parameters, and what an upgrade of older arguments takes and returns."""

from typing import Any

from shop import app


def upgrade(version: int, arguments: dict[str, Any]) -> dict[str, Any]:
    return {**arguments, "lang": "en" if version < 2 else "fr"}


@app.task(name="versions.greet", version=2, upgrade=upgrade)
def greet(user_id: int, lang: str) -> str:
    return f"{lang} {user_id}"


@app.remote(name="versions.charge", version=2)
def charge(cents: int) -> int:
    raise NotImplementedError


greet.send(1, "en")
greet.send(1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
cents: int = charge.call(5)


def wrong(version: str) -> None: ...


@app.task(name="versions.wrong", version=2, upgrade=wrong)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
def other(user_id: int) -> None: ...
