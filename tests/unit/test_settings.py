"""Settings: what cannot be is refused where they are read, with the variable's name."""

from __future__ import annotations

import pytest

from amqpworker.errors import ConfigError
from amqpworker.settings import Settings


@pytest.mark.parametrize("name", ["SEND_TIMEOUT", "CALL_TIMEOUT", "CONNECT_TIMEOUT", "RESULT_TTL"])
@pytest.mark.parametrize("value", ["inf", "nan", "-1", "soon"])
def test_a_duration_that_no_clock_can_wait_for_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """An endless one would fail at the first message instead, in whoever sends it."""
    monkeypatch.setenv(f"AMQPWORKER_{name}", value)
    with pytest.raises(ConfigError, match=f"AMQPWORKER_{name}"):
        Settings.load()
