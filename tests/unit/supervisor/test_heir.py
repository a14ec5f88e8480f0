"""What a supervisor tells its heir."""

from __future__ import annotations

import resource

from hypothesis import given
from hypothesis import strategies as st

from amqpworker.ipc.report import DUMP_SIGNAL
from amqpworker.supervisor import heir
from amqpworker.supervisor.heir import LONGEST, decode, encode
from amqpworker.supervisor.will import Will

SECONDS = st.integers(0, 10**9).map(lambda number: number / 1000)


@given(st.dictionaries(st.integers(1, 2**22), SECONDS))
def test_what_is_told_is_understood_and_never_looks_like_the_end(patience: dict[int, float]) -> None:
    told = encode(patience)
    assert told
    assert decode(told) == patience


def test_the_largest_pool_that_can_be_asked_for_is_told_in_one_piece() -> None:
    assert len(encode({4_000_000 + number: 99_999_999.0 for number in range(2000)})) < LONGEST


def test_the_heir_asks_for_stacks_by_the_signal_that_worker_processes_listen_to() -> None:
    assert heir.DUMP_SIGNAL == DUMP_SIGNAL


def test_a_supervisor_without_a_descriptor_to_spare_does_without_an_heir() -> None:
    will, kept = Will(), resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, kept[1]))
    try:
        will.update({4711: 1.0})
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, kept)
    will.close()
