"""How processes are found and ended, and which of those that come to a supervisor are ended at all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from amqpworker.ipc.descendants import (
    KILL_GRACE,
    TERM_GRACE,
    ProcessKey,
    Termination,
    alive_with_descendants,
    descendants_of,
    group_members,
    keys_of,
    stat_of,
    terminate_all,
)
from amqpworker.supervisor.crash_history import DEATH_PATIENCE
from amqpworker.supervisor.orphans import RECENT, Orphans
from amqpworker.worker.isolation.suspects import PATIENCE
from tests.support import wait_until

STUBBORN = "trap '' TERM; echo on; while :; do sleep 0.05; done"


@contextmanager
def shell(text: str, **options: bool) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program, which has begun when it has written something."""
    with subprocess.Popen(["/bin/sh", "-c", text], stdout=subprocess.PIPE, **options) as program:  # type: ignore[call-overload]
        assert program.stdout.readline()
        try:
            yield program
        finally:
            program.kill()


def test_what_obeys_sigterm_is_not_killed_and_what_does_not_is_killed_after_its_grace() -> None:
    with shell("echo on; exec sleep 600") as obeys, shell(STUBBORN) as stubborn:
        both = keys_of([obeys.pid, stubborn.pid])
        assert len(both) == 2
        termination = terminate_all(lambda: keys_of([obeys.pid, stubborn.pid]), grace=0.5)
        assert (termination.terminated, termination.killed, termination.left) == (
            both,
            known_as(both, stubborn.pid),
            set(),
        )
        assert (obeys.wait(), stubborn.wait()) == (-signal.SIGTERM, -signal.SIGKILL)


def known_as(of: set[ProcessKey], pid: int) -> set[ProcessKey]:
    return {one for one in of if one[0] == pid}


# Its first thread ends (SYS_exit), so that it is shown as a zombie; the other one has a child, and ends with its input.
HALF_ENDED = """
import ctypes, platform, subprocess, sys, threading

def live():
    child = subprocess.Popen(["sleep", "600"])
    print(child.pid, flush=True)
    sys.stdin.read()

threading.Thread(target=live).start()
ctypes.CDLL(None).syscall({"x86_64": 60, "aarch64": 93}[platform.machine()], 0)
"""


def test_a_process_whose_first_thread_alone_has_ended_is_alive_with_its_children() -> None:
    program = subprocess.Popen([sys.executable, "-c", HALF_ENDED], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert program.stdin is not None
    assert program.stdout is not None
    child = int(program.stdout.readline())
    try:
        wait_until(lambda: (stat := stat_of(program.pid)) is not None and stat[0] == "Z", 10, "it is shown as a zombie")
        there = keys_of([program.pid])
        assert {pid for pid, _ in there} == {program.pid}
        assert {pid for pid, _ in alive_with_descendants(there)} == {program.pid, child}
    finally:
        os.kill(child, signal.SIGKILL)
        program.stdin.close()
    wait_until(lambda: not keys_of([program.pid]), 10, "it has ended, and is not reaped yet")
    program.wait(10)
    program.stdout.close()


def test_another_process_with_the_id_of_an_earlier_one_is_not_touched() -> None:
    with shell("echo on; exec sleep 600") as program:
        (now,) = keys_of([program.pid])
        earlier = (now[0], now[1] - 1)
        assert alive_with_descendants({earlier}) == set()
        termination = Termination(lambda: {earlier}, 0.0, grace=1.0)
        assert not termination.proceed(0.5)
        assert termination.proceed(1.0 + KILL_GRACE), "it is given up"
        assert program.poll() is None


def test_descendants_are_found_at_any_depth_and_in_groups_of_their_own() -> None:
    with shell("setsid sh -c 'echo on; sleep 600; exit' & wait", start_new_session=True) as program:
        wait_until(lambda: len(descendants_of(program.pid)) == 2, what="a shell and its child below")
        assert alive_with_descendants(keys_of([program.pid])) == descendants_of(program.pid) | keys_of([program.pid])
        assert group_members(program.pid) == keys_of([program.pid])
        terminate_all(lambda: alive_with_descendants(keys_of([program.pid])))
        assert program.wait() in {-signal.SIGTERM, 0}, "0 if its child ended first, so that it was done"


def test_a_supervisor_ends_what_comes_with_a_death_and_nothing_that_it_had_before() -> None:
    orphans, me = Orphans(), os.getpid()
    with shell("echo on; exec sleep 600") as before:
        orphans.discover((), 100.0)
        with shell("echo on; exec sleep 600") as others, shell("echo on; exec sleep 600") as ours:
            orphans.discover({ours.pid}, 200.0)
            with shell("echo on; exec sleep 600") as left:
                orphans.discover({ours.pid}, 200.0 + RECENT + 1)
                assert not orphans.active
                orphans.terminate_children_of(me, {"a"}, 200.0 + RECENT + 2)
                assert orphans.active
                assert set(orphans.blocked) == {"a"}
                until = time.monotonic() + 20
                while orphans.active and time.monotonic() < until:
                    orphans.proceed({ours.pid}, 200.0 + RECENT + 2)
                assert not orphans.active
                assert not orphans.blocked
                assert left.wait() == -signal.SIGTERM
            assert [one.poll() for one in (before, others, ours)] == [None] * 3


def test_a_worker_waits_longer_for_an_answer_than_its_supervisor_may_take() -> None:
    assert PATIENCE > TERM_GRACE + KILL_GRACE + DEATH_PATIENCE + 1
