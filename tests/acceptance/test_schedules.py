"""Schedules while their leaders die: no tick is missed, and none has two ids."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.leader_faults import kill_and_freeze_leaders
from tests.support import Broker

SECONDS = 15.0


@pytest.mark.timeout(240)
def test_no_tick_is_missed_or_has_two_ids_while_leaders_are_killed_and_frozen(tmp_path: Path, vhost: Broker) -> None:
    disturbed = kill_and_freeze_leaders(tmp_path, vhost.url, SECONDS)
    disturbed.verdict.check()
    assert disturbed.counts["killed"] > 0
    assert disturbed.counts["frozen"] > 0
