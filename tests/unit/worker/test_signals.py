"""The signals of worker processes: which are ignored, and that ours are set again after code of the app."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from amqpworker.ipc.stray_signals import DUMP_SIGNAL, STRAY, ignore_stray, stray_signals_blocked
from amqpworker.supervisor.launch import SIGNALS
from amqpworker.supervisor.orphan_reaper import IGNORED
from amqpworker.worker.signals import STOPPING, OwnSignals


@contextmanager
def as_before() -> Iterator[None]:
    """Leave signals as they were."""
    kept = {number: signal.getsignal(number) for number in (*STOPPING, *STRAY)}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def loop_that_listens() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    loop.add_signal_handler(signal.SIGTERM, lambda: os._exit(9))
    return loop


REPLACE: dict[str, Callable[[], object]] = {
    "SIG_IGN": lambda: signal.signal(signal.SIGTERM, signal.SIG_IGN),
    "SIG_DFL": lambda: signal.signal(signal.SIGTERM, signal.SIG_DFL),
    "tests.unit.worker.test_signals.as_before": lambda: signal.signal(signal.SIGTERM, as_before),
    "asyncio.unix_events._sighandler_noop": loop_that_listens,
    "blocked": lambda: signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM]),
}


@pytest.mark.parametrize("told", REPLACE)
def test_a_signal_handler_that_an_app_has_replaced_is_restored_and_logged(
    caplog: pytest.LogCaptureFixture, told: str
) -> None:
    heard = []
    with as_before():
        own = OwnSignals()
        own.set(lambda number, _frame: heard.append(number))
        replaced = REPLACE[told]()
        with caplog.at_level(logging.WARNING):
            own.check("the app's lifespan")
            own.check("the app's lifespan")
        os.kill(os.getpid(), signal.SIGTERM)
        assert heard == [signal.SIGTERM]
        if isinstance(replaced, asyncio.AbstractEventLoop):
            replaced.run_until_complete(asyncio.sleep(0))  # it has not heard of the signal
            replaced.close()
    (line,) = caplog.records
    fields = line.msg
    assert isinstance(fields, dict)
    assert fields["event"] == "signal_handler_replaced"
    assert (fields["source"], fields["handlers"]) == ("the app's lifespan", {"SIGTERM": told})


def test_signal_handlers_are_restored_after_an_app_is_imported() -> None:
    with as_before():
        own = OwnSignals()
        before = signal.getsignal(signal.SIGTERM)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        own.check("the app's import")
        assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("number", STRAY)
def test_stray_signals_are_ignored_even_if_they_arrive_while_the_process_starts(number: int) -> None:
    with as_before():
        with stray_signals_blocked():
            signal.raise_signal(number)  # to this thread: others of this process hold nothing back
            ignore_stray()
        os.kill(os.getpid(), number)


def test_a_process_is_started_with_stray_signals_blocked_and_its_parent_unblocks_them_afterwards() -> None:
    with stray_signals_blocked():
        process = subprocess.Popen(["/bin/sleep", "60"])
    try:
        line = next(line for line in Path(f"/proc/{process.pid}/status").read_text().splitlines() if "SigBlk" in line)
        held = int(line.split()[1], 16)
        assert {number for number in range(1, 65) if held >> (number - 1) & 1} == {*STRAY, DUMP_SIGNAL}
    finally:
        process.kill()
        process.wait()
    assert not {*STRAY} & signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_a_stray_signal_to_all_processes_of_a_service_ends_neither_its_supervisor_nor_its_orphan_reaper() -> None:
    assert {*STRAY, DUMP_SIGNAL} - {signal.SIGQUIT} <= {*SIGNALS}
    assert {*STRAY, DUMP_SIGNAL} <= {*IGNORED}
