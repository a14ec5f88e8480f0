"""A queue on the command line of a worker: every name can be written, and what is not a setting is part of the name."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from amqpworker.worker.options import QueueOptions

# Names out of what settings are made of, and any others.
NAMES = st.text(st.sampled_from(":,=8prefetchauto"), min_size=1) | st.text(min_size=1)


def written(queue: QueueOptions) -> str:
    """As --help shows it: settings after a last colon, which ends the text if there are none."""
    prefetch = "" if queue.prefetch is None else f",prefetch={queue.prefetch}"
    return f"{queue.name}:{'' if queue.threads is None else queue.threads}{prefetch}"


@given(NAMES, st.none() | st.integers(1, 10_000), st.none() | st.just("auto") | st.integers(1, 65_535))
def test_every_queue_can_be_written_with_every_setting(name: str, threads: int | None, prefetch: Any) -> None:
    queue = QueueOptions(name=name, threads=threads, prefetch=prefetch)
    assert QueueOptions.parse(written(queue)) == queue


@given(NAMES)
def test_a_name_that_does_not_end_like_settings_is_written_as_it_is(name: str) -> None:
    if re.search(r":[0-9]{0,9}(,prefetch=(auto|[0-9]{1,9}))?\Z", name) is None:
        assert QueueOptions.parse(name) == QueueOptions(name=name)


@pytest.mark.parametrize(
    ("text", "queue"),
    [
        ("emails", ("emails", None, None)),
        ("emails:8", ("emails", 8, None)),
        ("reports:2,prefetch=4", ("reports", 2, 4)),
        ("reports:2,prefetch=auto", ("reports", 2, "auto")),
        ("reports:2,prefetch=Auto", ("reports:2,prefetch=Auto", None, None)),
        ("reports:,prefetch=4", ("reports", None, 4)),
        ("reports,prefetch=4", ("reports,prefetch=4", None, None)),
        ("reports:2,prefech=4", ("reports:2,prefech=4", None, None)),
        ("reports:2,prefetch=", ("reports:2,prefetch=", None, None)),
        ("eu:reports", ("eu:reports", None, None)),
        ("eu:reports:2", ("eu:reports", 2, None)),
        ("jobs:8:", ("jobs:8", None, None)),
        ("jobs::", ("jobs:", None, None)),
        ("jobs:-1", ("jobs:-1", None, None)),
        ("jobs:٣", ("jobs:٣", None, None)),
        ("a,b=c", ("a,b=c", None, None)),
    ],
)
def test_settings_start_after_the_last_colon(text: str, queue: tuple[str, int | None, Any]) -> None:
    name, threads, prefetch = queue
    assert QueueOptions.parse(text) == QueueOptions(name=name, threads=threads, prefetch=prefetch)


@pytest.mark.parametrize("text", ["", ":", ":8", "a:0", "a:10001", "a:2,prefetch=0", "a:2,prefetch=65536"])
def test_numbers_out_of_range_and_an_empty_name_are_refused(text: str) -> None:
    with pytest.raises(ValidationError):
        QueueOptions.parse(text)
