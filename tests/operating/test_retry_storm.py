"""A bounded queue whose tasks all fail and are retried: the short form of the soak in tests/long."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from amqpworker import App
from tests.storms import check, rage
from tests.support import Broker

SECONDS = 15.0


def test_retries_of_a_full_queue_are_taken_first_and_other_delays_are_on_time(
    make_app: Callable[..., App], vhost: Broker, tmp_path: Path
) -> None:
    storm = rage(make_app(), vhost, tmp_path, SECONDS)
    check(storm, vhost, on_time=0.5)  # of the messages: other programs may use this machine
