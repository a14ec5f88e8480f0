"""Keeps the machine's speed out of what hypothesis reports of the tests; and a fleet that several files begin with."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from tests.unit.supervisor.fleet_scene import FleetScene

# A test that is slow now and then shows something of the machine, not of the code.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


@pytest.fixture(scope="session", autouse=True)
def characters_are_known() -> None:
    """
    Have hypothesis make its table of UTF-8's characters before the first test.

    Its folder keeps the table, but a fresh checkout has none. Making one takes a second, several on a busy machine, and
    they count as the drawing time of whichever test draws text first: hypothesis then fails it for being too slow.
    """
    st.text().validate()


@pytest.fixture
def two() -> FleetScene:
    """Two processes that consume: 1 and 2."""
    scene = FleetScene()
    scene.consumes(1)
    scene.consumes(2)
    return scene
