"""What a supervisor sends to its orphan reaper."""

from __future__ import annotations

import resource

from hypothesis import given
from hypothesis import strategies as st

from amqpworker.supervisor.orphan_guard import OrphanGuard
from amqpworker.supervisor.orphan_reaper import MAX_MESSAGE, decode, encode

SECONDS = st.integers(0, 10**9).map(lambda number: number / 1000)


@given(st.dictionaries(st.integers(1, 2**22), SECONDS))
def test_what_is_sent_is_understood_and_never_looks_like_the_end(grace: dict[int, float]) -> None:
    sent = encode(grace)
    assert sent
    assert decode(sent) == grace


def test_the_largest_pool_that_can_be_configured_is_sent_in_one_piece() -> None:
    assert len(encode({4_000_000 + number: 99_999_999.0 for number in range(2000)})) < MAX_MESSAGE


def test_a_supervisor_without_a_descriptor_to_spare_runs_without_a_reaper() -> None:
    guard, kept = OrphanGuard(), resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, kept[1]))
    try:
        guard.update({4711: 1.0})
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, kept)
    guard.close()
