"""`amqpworker queues pause`, `resume` and `paused`, `amqpworker tasks pause` and `resume`, against a real broker."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.cli import Ended
from tests.integration.test_cli_tools import cli, shop

__all__ = ["cli", "shop"]

Cli = Callable[[str], Ended]


@pytest.fixture(autouse=True)
def app_by_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AMQPWORKER_APP", "clishop:app")


def test_a_queue_is_paused_listed_and_resumed(cli: Cli) -> None:
    assert cli("queues paused") == Ended(0, "Nothing is paused: nothing ever was, or the stream was deleted.\n", "")
    first = cli("queues pause emails")
    assert (first.code, first.out) == (0, "The queue 'emails' is paused.\n")
    assert "The stream 'amqpworker.control' was empty before" in first.complaint()
    assert cli("queues pause emails") == Ended(0, "The queue 'emails' is paused already.\n", "")
    (listed,) = cli("queues paused --json").json
    assert (listed["kind"], listed["name"], len(listed["since"])) == (
        "queue",
        "emails",
        len("2026-11-30T08:00:00.000Z"),
    )
    shown = cli("queues paused").out
    assert "emails" in shown
    assert listed["since"] in shown
    assert cli("queues resume emails --json").json == [{"queue": "emails", "paused": False, "changed": True}]
    assert cli("queues resume emails") == Ended(0, "The queue 'emails' is not paused.\n", "")
    assert cli("queues paused") == Ended(0, "Nothing is paused.\n", "")


def test_a_task_is_paused_and_resumed(cli: Cli) -> None:
    assert cli("tasks pause shop.welcome --json").json == [{"task": "shop.welcome", "paused": True, "changed": True}]
    assert [one["kind"] for one in cli("queues paused --json").json] == ["task"]
    assert cli("tasks resume shop.welcome") == Ended(0, "The task 'shop.welcome' is resumed.\n", "")


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("queues pause emial", "did you mean emails?"),
        ("queues resume emial", "did you mean emails?"),
        ("tasks pause shop.wellcome", "did you mean shop.welcome?"),
        ("tasks resume shop.wellcome", "did you mean shop.welcome?"),
    ],
)
def test_a_typo_is_one_line_and_exit_code_2(cli: Cli, line: str, text: str) -> None:
    ended = cli(line)
    assert (ended.code, ended.out) == (2, "")
    assert text in ended.complaint()
