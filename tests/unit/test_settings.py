"""Settings: invalid ones are refused when they are read, with the variable's name."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

import pytest

from amqpworker.errors import ConfigError
from amqpworker.settings import Settings, broker_url, mistyped


@pytest.mark.parametrize("name", ["SEND_TIMEOUT", "CALL_TIMEOUT", "CONNECT_TIMEOUT", "RESULT_TTL"])
@pytest.mark.parametrize("value", ["inf", "nan", "-1", "soon"])
def test_a_duration_that_no_clock_can_wait_for_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """An endless one would fail at the first message instead, in its sender."""
    monkeypatch.setenv(f"AMQPWORKER_{name}", value)
    with pytest.raises(ConfigError, match=f"AMQPWORKER_{name}"):
        Settings()


def test_the_url_of_a_credential_is_used_unless_the_environment_has_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AMQPWORKER_URL", raising=False)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert broker_url(None) == "amqp://guest:guest@localhost:5672/%2F"
    (tmp_path / "amqpworker_url").write_text("amqp://me:sesame@host/\n")
    assert broker_url(None) == "amqp://me:sesame@host/"
    monkeypatch.setenv("AMQPWORKER_URL", "amqp://other/")
    assert broker_url(None) == "amqp://other/"


def test_an_error_about_a_credential_that_is_not_text_names_it_and_does_not_show_its_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AMQPWORKER_URL", raising=False)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    (tmp_path / "amqpworker_url").write_bytes(b"amqp://me:sesame\xff@host/")
    with pytest.raises(ConfigError, match=f"{tmp_path}/amqpworker_url: it is not UTF-8") as caught:
        broker_url(None)
    shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value.__context__)
    assert "sesame" not in shown


def test_a_credential_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AMQPWORKER_URL", raising=False)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    (tmp_path / "amqpworker_url").mkdir()  # root may read any file
    with pytest.raises(ConfigError, match=f"{tmp_path}/amqpworker_url: Is a directory"):
        broker_url(None)


@pytest.mark.parametrize("value", [-1, 65536, 10**9])
def test_a_heartbeat_that_amqp_cannot_carry_is_refused(value: int) -> None:
    with pytest.raises(ConfigError, match=r"^Setting heartbeat must be "):
        Settings(heartbeat=value)
    assert Settings(heartbeat=65535).heartbeat == 65535


@pytest.mark.parametrize("name", ["url", "passwort", "send_timeout"])
def test_an_error_names_the_setting_and_does_not_show_its_value(name: str) -> None:
    given: dict[str, Any] = {name: "amqp://me:sesame@host"}
    with pytest.raises(ConfigError, match=f"etting {name}") as caught:
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
def test_a_typo_in_a_variable_is_found(name: str, meant: str) -> None:
    assert mistyped({name: "1"}) == {name: meant}


@pytest.mark.parametrize(
    "name", ["AMQPWORKER_ACK_TIMEOUT", "amqpworker_url", "AMQPWORKER_APP", "AMQPWORKER_NODE", "AMQPWORKER_SLOTS", "URL"]
)
def test_a_variable_that_is_read_or_belongs_to_another_program_is_not_a_typo(name: str) -> None:
    assert mistyped({name: "1"}) == {}


def test_paths_are_relative_to_the_directory_in_which_the_settings_were_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = Settings(tls_ca=Path("ca.pem"), tls_cert=Path("/etc/shop.pem"))
    monkeypatch.chdir("/")
    assert (settings.tls_ca, settings.tls_cert, settings.tls_key) == (tmp_path / "ca.pem", Path("/etc/shop.pem"), None)


def test_an_unknown_setting_is_refused_with_the_one_that_was_probably_meant() -> None:
    given: dict[str, Any] = {"send_timout": 3, "nonsense": 1}
    with pytest.raises(ConfigError) as caught:
        Settings(**given)
    assert str(caught.value) == ("Unknown setting send_timout (did you mean send_timeout?); Unknown setting nonsense.")


def shown(default: Any) -> str:
    """As the page shows it: 15, not 15.0."""
    return "none" if default is None else f"`{default:g}`" if isinstance(default, float) else f"`{default}`"


def test_the_page_about_settings_has_a_row_for_every_setting() -> None:
    page = (Path(__file__).parents[2] / "docs/settings.md").read_text()
    rows = [
        f"| `{name}` | `AMQPWORKER_{name.upper()}` | {shown(field.default)} | {field.description} |"
        for name, field in Settings.model_fields.items()
    ]
    _, _, table = page.partition("| setting | in the environment | default | meaning |\n| --- | --- | --- | --- |\n")
    assert table.partition("\n\n")[0].splitlines() == rows
