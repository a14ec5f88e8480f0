"""What an error of TLS means: whose certificate it is about, and whether waiting helps."""

from __future__ import annotations

import errno
import ssl
from pathlib import Path
from typing import Any

import pytest
from pika import exceptions

from amqpworker.broker.address import addresses
from amqpworker.broker.pika_errors import problem_of
from amqpworker.broker.pika_parameters import parameters
from amqpworker.broker.tls import tls_context
from amqpworker.errors import ConfigError, NotConnected
from amqpworker.settings import Settings
from tests.certificates import encrypt_key, make_authority

(ADDRESS,) = addresses("amqps://broker.example/shop")


def failed(reason: str, kind: type[ssl.SSLError] = ssl.SSLError) -> ssl.SSLError:
    error = kind(1, f"[SSL: {reason}] in other words")
    error.reason = reason
    return error


def not_trusted(code: int, why: str) -> ssl.SSLError:
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_code, error.verify_message = code, why
    return error


CASES: list[tuple[BaseException, str, str]] = [
    (failed("TLSV13_ALERT_CERTIFICATE_REQUIRED"), "incompatible", "requires a client certificate"),
    (
        failed("SSLV3_ALERT_CERTIFICATE_EXPIRED"),
        "incompatible",
        "did not accept our certificate (the setting tls_cert): it has exp",
    ),
    (
        failed("TLSV1_ALERT_UNKNOWN_CA"),
        "incompatible",
        "did not accept our certificate (the setting tls_cert): it does not know",
    ),
    (failed("SSLV3_ALERT_BAD_CERTIFICATE"), "incompatible", "did not accept our certificate"),
    (failed("SSLV3_ALERT_HANDSHAKE_FAILURE"), "incompatible", "requires a client certificate"),
    (
        failed("WRONG_VERSION_NUMBER"),
        "incompatible",
        "does not speak TLS 1.2 or later (WRONG_VERSION_NUMBER): is the port",
    ),
    (not_trusted(19, "self-signed certificate"), "incompatible", "is not trusted: self-signed certificate."),
    (
        not_trusted(10, "certificate has expired"),
        "unreachable",
        "The certificate of broker.example:5671 is not trusted: certificate",
    ),
    (failed("UNEXPECTED_EOF_WHILE_READING"), "unreachable", "is RabbitMQ running behind it?"),
    (failed("SSL_ERROR_EOF", ssl.SSLEOFError), "unreachable", "is RabbitMQ running behind it?"),
    (failed("TLSV1_UNRECOGNIZED_NAME"), "unreachable", "is RabbitMQ running behind it?"),
    (failed("TLSV1_ALERT_INTERNAL_ERROR"), "unreachable", "is RabbitMQ running behind it?"),
    (ConnectionResetError(104, "Connection reset by peer"), "unreachable", "was lost"),
    (UnicodeError("label empty or too long"), "incompatible", "is not valid"),
]


@pytest.mark.parametrize(("error", "kind", "told"), CASES)
def test_an_error_of_tls_is_one_sentence_that_names_the_owner_of_the_certificate(
    error: BaseException, kind: str, told: str
) -> None:
    problem = problem_of(error, ADDRESS)
    assert problem.kind == kind
    assert told in problem.text
    assert problem_of(error, ADDRESS, was_open=True).kind == "unreachable" or isinstance(error, UnicodeError)


def test_an_alert_that_comes_after_the_handshake_is_read_from_what_pika_keeps_of_it() -> None:
    lost = exceptions.StreamLostError(f"Stream connection lost: {failed('TLSV13_ALERT_CERTIFICATE_REQUIRED')!r}")
    problem = problem_of(exceptions.IncompatibleProtocolError(repr(lost)), ADDRESS, has_received=False)
    assert problem.kind == "incompatible"
    assert "requires a client certificate" in problem.text


def test_a_connection_that_ends_silently_after_the_handshake_is_waited_for_and_the_certificate_is_named() -> None:
    problem = problem_of(exceptions.IncompatibleProtocolError("EOF"), ADDRESS, has_received=False)
    assert problem.kind == "unreachable"
    assert "tls_cert" in problem.text


def test_a_key_with_a_pass_phrase_is_refused_by_its_setting(tmp_path: Path) -> None:
    certificate = make_authority(tmp_path, "ours")
    key = encrypt_key(certificate.with_suffix(".key"), "sesame")
    both = tmp_path / "both.pem"
    both.write_text(certificate.read_text() + key.read_text())
    for settings, told in (
        (Settings(tls_cert=certificate, tls_key=key), f"tls_key, '{key}'"),
        (Settings(tls_cert=both), f"tls_cert, '{both}'"),
    ):
        with pytest.raises(ConfigError, match=f"{told}, is encrypted"):
            tls_context(settings)


@pytest.mark.parametrize(
    ("number", "wanted"), [(errno.ENOENT, ConfigError), (errno.EACCES, ConfigError), (errno.EMFILE, NotConnected)]
)
def test_only_a_file_that_stays_unreadable_is_an_error_of_the_settings(
    monkeypatch: pytest.MonkeyPatch, number: int, wanted: type[Exception]
) -> None:
    def load(*_: object) -> None:
        raise OSError(number, "why")

    monkeypatch.setattr(ssl.SSLContext, "load_verify_locations", load)
    with pytest.raises(wanted, match=r"tls_ca, '/.*/ca\.pem', cannot be used: why"):
        tls_context(Settings(tls_ca="ca.pem"))


@pytest.mark.parametrize(
    ("url", "settings", "wanted"),
    [
        ("amqps://host", {"tls_cert": "cert"}, "EXTERNAL"),
        ("amqps://host", {}, "PLAIN"),
        ("amqps://me@host", {"tls_cert": "cert"}, "PLAIN"),
        ("amqps://guest:guest@host", {"tls_cert": "cert"}, "PLAIN"),
        ("amqp://host", {"tls_cert": "cert"}, "PLAIN"),
    ],
)
def test_who_has_a_certificate_and_names_no_user_logs_in_by_it(
    monkeypatch: pytest.MonkeyPatch, url: str, settings: dict[str, Any], wanted: str
) -> None:
    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", lambda *_: None)
    (address,) = addresses(url)
    found = parameters(address, Settings(**settings), "test").credentials
    assert wanted == found.TYPE


def test_a_key_without_its_certificate_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="tls_key needs tls_cert"):
        tls_context(Settings(tls_key=tmp_path / "shop.key"))
