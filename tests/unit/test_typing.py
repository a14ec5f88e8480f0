"""What the type checker of a user reports: a verb takes the task's own parameters, and options go with their verbs."""

from __future__ import annotations

import re
from pathlib import Path

from mypy import api

HEAD = """
from amqpworker import App, Message
from amqpworker.client.sent import Sent
app = App()

@app.remote(name="charge", queue="billing")
def charge(order: str, cents: int = 0) -> float:
    raise NotImplementedError

@app.task(queue="emails")
def welcome(user: int) -> str: return str(user)

"""


def complaints(tmp_path: Path, lines: list[str]) -> dict[str, str]:
    """Return what mypy reports of each line, "" if it reports nothing."""
    program = tmp_path / "program.py"
    program.write_text(HEAD + "\n".join(lines) + "\n")
    told, problem, _ = api.run(["--strict", "--no-error-summary", "--hide-error-context", str(program)])
    assert not problem
    first = HEAD.count("\n") + 1
    found = dict.fromkeys(lines, "")
    for line in told.splitlines():
        if match := re.match(r".*program\.py:(\d+): (?:error|note): (.*)", line):
            number = int(match[1]) - first
            assert number >= 0, line
            found[lines[number]] += match[2] + "\n"
    return found


def test_what_is_right_is_accepted(tmp_path: Path) -> None:
    right = [
        'charge.send("o-1", 990)',
        'charge.send("o-1", cents=990)',
        'charge.options(delay=5).send("o-1")',
        'charge.options(timeout=5).call("o-1")',
        'charge.options(queue="q", id="1", headers={"a": 1}).send("o-1")',
        'charge.options(queue="q").call("o-1")',
        'total: float = charge.call("o-1")',
        'stored: float = charge.send("o-1").result()',
        "here: str = welcome(5)",
        "there: str = welcome.call(5)",
        "app.send_many(welcome.message(number) for number in range(3))",
        "app.send(welcome.options(delay=3600).message(42))",
        'of_message: float = app.call(charge.message("o-1"))',
        'result: float = app.send(charge.message("o-1")).result()',
        "mixed: list[Message[str | float]] = [welcome.message(5), charge.message('o-1')]",
        "async def awaited() -> float: return await charge.acall('o-1')",
        "async def awaited_sent() -> str: return await (await welcome.asend(5)).aresult()",
        "async def awaited_message() -> str: return await app.acall(welcome.message(5), timeout=2)",
        "async def awaited_many() -> list[Sent[str]]: return await app.asend_many([welcome.message(5)])",
    ]
    assert {line: told for line, told in complaints(tmp_path, right).items() if told} == {}


def test_what_is_wrong_is_reported(tmp_path: Path) -> None:
    wrong = [
        "wrong_value: str = app.call(charge.message('o-1'))",
        "async def wrong_awaited() -> str: return await charge.acall('o-1')",
        "async def wrong_argument() -> None: await welcome.asend('x')",
        "charge.send(5)",
        'charge.send("o-1", cents="much")',
        'charge.send("o-1", delay=5)',
        "charge.send()",
        'charge.message("o-1", 5, 6)',
        'charge.options(timeout=5).send("o-1")',
        'charge.options(delay=5).call("o-1")',
        'charge.options(expires=5).call("o-1")',
        "charge.options(delay=5, timeout=5)",
        'charge.options(delay="5")',
        "charge.options(nonsense=5)",
        'text: str = charge.call("o-1")',
        'stored: str = charge.send("o-1").result()',
        'welcome("5")',
        'welcome.call("5")',
    ]
    told = complaints(tmp_path, wrong)
    assert [line for line in wrong if not told[line]] == []
