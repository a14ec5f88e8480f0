"""Settings: what cannot be is refused where they are read, with the variable's name."""

from __future__ import annotations

import traceback
from typing import Any

import pytest

from amqpworker.errors import ConfigError
from amqpworker.settings import Settings, mistyped


@pytest.mark.parametrize("name", ["SEND_TIMEOUT", "CALL_TIMEOUT", "CONNECT_TIMEOUT", "RESULT_TTL"])
@pytest.mark.parametrize("value", ["inf", "nan", "-1", "soon"])
def test_a_duration_that_no_clock_can_wait_for_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """An endless one would fail at the first message instead, in whoever sends it."""
    monkeypatch.setenv(f"AMQPWORKER_{name}", value)
    with pytest.raises(ConfigError, match=f"AMQPWORKER_{name}"):
        Settings()


@pytest.mark.parametrize("value", [-1, 65536, 10**9])
def test_a_heartbeat_that_amqp_cannot_carry_is_refused(value: int) -> None:
    with pytest.raises(ConfigError, match="heartbeat: "):
        Settings(heartbeat=value)
    assert Settings(heartbeat=65535).heartbeat == 65535


@pytest.mark.parametrize("name", ["url", "passwort", "send_timeout"])
def test_what_does_not_fit_is_named_and_its_value_not_told(name: str) -> None:
    given: dict[str, Any] = {name: "amqp://me:sesame@host"}
    with pytest.raises(ConfigError, match=f"{name}: ") as caught:
        Settings(**given)
    shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value.__context__)
    assert "sesame" not in shown


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("AMQPWORKER_ACK_TIMOUT", "AMQPWORKER_ACK_TIMEOUT"),
        ("AMQPWORKER_MAXCRASHES", "AMQPWORKER_MAX_CRASHES"),
        ("amqpworker_drain_timeot", "AMQPWORKER_DRAIN_TIMEOUT"),
        ("AMQPWORKER_URLS", "AMQPWORKER_URL"),
    ],
)
def test_a_slip_in_a_variable_is_found(name: str, meant: str) -> None:
    assert mistyped({name: "1"}) == {name: meant}


@pytest.mark.parametrize(
    "name", ["AMQPWORKER_ACK_TIMEOUT", "amqpworker_url", "AMQPWORKER_APP", "AMQPWORKER_NODE", "AMQPWORKER_SLOTS", "URL"]
)
def test_a_variable_that_is_read_or_is_somebody_elses_is_no_slip(name: str) -> None:
    assert mistyped({name: "1"}) == {}
