"""The soak of a bounded queue: all its tasks fail and are retried, for as long as it lasts."""

from __future__ import annotations

from pathlib import Path

import pytest

from amqpworker import App
from tests.long.conftest import LONG, SECONDS, TIMEOUT, tell
from tests.storms import check, rage
from tests.support import Broker

SHORTEST = 20.0  # ten rounds of retries


@pytest.mark.timeout(TIMEOUT)
def test_retries_of_a_full_queue_are_taken_first_all_the_time_and_other_delays_are_on_time(
    vhost: Broker, tmp_path: Path
) -> None:
    with App(vhost.url) as app:
        storm = rage(app, vhost, tmp_path, max(SECONDS, SHORTEST))
    tell("retry storm", f"{len(storm.accepted):,}", f"{storm.refused:,} sends refused by the bound", str(storm))
    check(storm, vhost, on_time=0.99 if LONG else 0.5)
