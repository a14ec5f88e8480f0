"""The schedulers' soak: what leads is killed or frozen every three seconds, over 200 schedules of one second."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.leader_faults import kill_and_freeze_leaders
from tests.long.conftest import SECONDS, TIMEOUT, tell
from tests.support import Broker


@pytest.mark.timeout(TIMEOUT)
def test_no_tick_is_missed_or_has_two_ids_while_leaders_die(tmp_path: Path, vhost: Broker) -> None:
    disturbed = kill_and_freeze_leaders(tmp_path, vhost.url, SECONDS)
    counts, verdict = disturbed.counts, disturbed.verdict
    faults = f"leader killed {counts['killed']}, leader frozen {counts['frozen']}"
    tell("schedules", f"{verdict.ticks:,}", faults, f"{verdict}, the latest {verdict.latest / 1000:.1f} s late")
    verdict.check()
    assert counts["killed"] > 0
    assert counts["frozen"] > 0
