"""A warning about calls that block an event loop: where, and once."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import pytest

from amqpworker import AmqpWorkerError, App
from amqpworker.client.event_loop_warning import warn_in_event_loop
from amqpworker.settings import Settings


def lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [record.msg for record in caplog.records if isinstance(record.msg, dict)]


def test_a_place_in_a_coroutine_is_reported_once_with_its_file_and_line(caplog: pytest.LogCaptureFixture) -> None:
    async def blocks() -> None:
        warn_in_event_loop("send")

    async def blocks_elsewhere() -> None:
        warn_in_event_loop("call")

    for function in (blocks, blocks, blocks_elsewhere):
        asyncio.run(function())
    found = lines(caplog)
    assert [line["method"] for line in found] == ["send", "call"]
    first = blocks.__code__.co_firstlineno + 1
    assert found[0]["place"] == f"{__file__}:{first}"
    assert found[0]["instead"] == "await …asend(…)"


def test_without_a_running_loop_nothing_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    warn_in_event_loop("send")
    assert lines(caplog) == []


def test_a_thread_beside_the_loop_may_block(caplog: pytest.LogCaptureFixture) -> None:
    async def beside() -> None:
        await asyncio.to_thread(warn_in_event_loop, "send")

    asyncio.run(beside())
    assert lines(caplog) == []


def test_what_has_no_method_for_coroutines_is_to_be_called_in_a_thread(caplog: pytest.LogCaptureFixture) -> None:
    app = App("amqp://127.0.0.1:1", settings=Settings(connect_timeout=0.1, send_timeout=0.1))

    async def blocks() -> None:
        app.pending.walk()
        with suppress(AmqpWorkerError):
            app.queues.paused()
        with suppress(AmqpWorkerError):
            app.dead.drop("id")

    asyncio.run(blocks())
    assert [(line["method"], line["instead"]) for line in lines(caplog) if "instead" in line] == [
        ("app.pending", "await asyncio.to_thread(…)"),
        ("app.queues.paused", "await asyncio.to_thread(…)"),
        ("app.dead", "await asyncio.to_thread(…)"),
    ]
