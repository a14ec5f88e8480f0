"""The ids of tasks."""

from __future__ import annotations

import time
import uuid

from amqpworker.model.message import new_id


def test_an_id_is_a_uuid_of_version_7_with_the_time_at_its_beginning() -> None:
    before = time.time_ns() // 1_000_000
    ids = [new_id() for _ in range(1000)]
    after = time.time_ns() // 1_000_000
    for one in ids:
        found = uuid.UUID(one)
        assert str(found) == one
        assert (found.version, found.variant) == (7, uuid.RFC_4122)
        assert before <= found.int >> 80 <= after
    assert len(set(ids)) == 1000
    assert {one[19] for one in ids} == set("89ab")
