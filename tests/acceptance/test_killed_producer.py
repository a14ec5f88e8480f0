"""A producer that is killed in the middle of a batch has what its ledger calls confirmed in the broker."""

from __future__ import annotations

import pytest

from tests.acceptance.oracle import balance
from tests.acceptance.scene import Scene

ENOUGH = 1_000_000  # no run gets that far


@pytest.mark.parametrize("after", [1, 1000])
def test_what_a_killed_producer_has_seen_confirmed_is_there(scene: Scene, after: int) -> None:
    sender = scene.sender("batch", "--count", str(ENOUGH), "--delays")
    scene.wait_for("confirmed", after, timeout=60)
    sender.kill()
    sender.wait()
    assert not scene.events("sender done")
    scene.pool("-p", "2", "-t", "8")
    result = balance(scene)
    result.check(f"producer killed after {after} confirms")
    assert after <= len(result.confirmed) < len(result.tries)
    scene.stop_all("pool")
