"""
TLS: the context of a connection, and what its errors mean.

Decides which errors may be temporary: no setting has to change.
"""

from __future__ import annotations

import errno
import re
import ssl
from typing import NamedTuple

from amqpworker.errors import ConfigError, NotConnected
from amqpworker.settings import Settings

# A process that has run out of a resource, or a file system that is unavailable, may recover.
TEMPORARY_ERRNOS = {
    *(errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EINTR, errno.EAGAIN),
    *(errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN, errno.EHOSTDOWN),
}


def tls_context(settings: Settings) -> ssl.SSLContext:
    """
    Return a context that verifies the broker's certificate and name, made anew for each connection.

    Raises ConfigError if a certificate or key file cannot be used, NotConnected if it cannot be read now, but perhaps later.
    """
    context = ssl.create_default_context()
    setting = "tls_ca", settings.tls_ca
    try:
        if settings.tls_ca is not None:
            context.load_verify_locations(settings.tls_ca)
        setting = "tls_cert or tls_key", settings.tls_cert
        if settings.tls_cert is not None:
            # Without this callback OpenSSL asks for a pass phrase on the terminal.
            context.load_cert_chain(settings.tls_cert, settings.tls_key, lambda: _no_passphrase(settings))
        elif settings.tls_key is not None:
            raise ConfigError("The setting tls_key needs tls_cert, the certificate that belongs to the key.")
    except OSError as error:  # SSLError is a subclass
        reason = error.reason if isinstance(error, ssl.SSLError) else error.strerror
        text = f"The file of the setting {setting[0]}, {str(setting[1])!r}, cannot be used: {reason}."
        raise (NotConnected if error.errno in TEMPORARY_ERRNOS else ConfigError)(text) from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _no_passphrase(settings: Settings) -> str:
    setting, file = ("tls_cert", settings.tls_cert) if settings.tls_key is None else ("tls_key", settings.tls_key)
    raise ConfigError(
        f"The key in the file of the setting {setting}, {str(file)!r}, is encrypted, and amqpworker supports no pass phrase: "
        f"decrypt it (openssl pkey -in FILE -out KEY) into a file that only this user can read."
    )


class TlsFailure(NamedTuple):
    """Why TLS failed; `is_temporary` if a later attempt may succeed."""

    text: str
    is_temporary: bool


CLIENT_CERTIFICATE = "{address} did not accept our certificate (the setting tls_cert): "
INTERRUPTED = "{address} closed the connection during the TLS handshake: is RabbitMQ running behind it?"
OTHER = "TLS with {address} failed: {reason}."
NOT_TRUSTED = "The certificate of {address} is not trusted: {reason}."

# The first pattern that is found in OpenSSL's name of the error. An alert comes from the other side.
MEANINGS: dict[str, str] = {
    "ALERT_CERTIFICATE_REQUIRED": "{address} requires a client certificate: set tls_cert and tls_key.",
    "ALERT_CERTIFICATE_EXPIRED": CLIENT_CERTIFICATE + "it has expired or is not valid yet.",
    "ALERT_UNKNOWN_CA": CLIENT_CERTIFICATE + "it does not know the authority that signed it.",
    "ALERT_CERTIFICATE_REVOKED": CLIENT_CERTIFICATE + "it was revoked.",
    "ALERT_(BAD|UNSUPPORTED)_CERTIFICATE|ALERT_CERTIFICATE_|ALERT_ACCESS_DENIED": CLIENT_CERTIFICATE + "{reason}.",
    "ALERT_HANDSHAKE_FAILURE": "{address} refused the TLS handshake: it requires a client certificate (the settings tls_cert "
    "and tls_key), or accepts none of our ciphers.",
    "WRONG_VERSION_NUMBER|ALERT_PROTOCOL_VERSION|UNSUPPORTED_PROTOCOL": "{address} does not speak TLS 1.2 or later "
    "({reason}): is the port correct (usually 5671), or should the URL begin with amqp://?",
    "EOF|UNRECOGNIZED_NAME|ALERT_(INTERNAL_ERROR|USER_CANCELLED|CLOSE_NOTIFY)|BAD_RECORD_MAC|DECRYPTION_FAILED": INTERRUPTED,
}

# X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED: a clock is corrected, or the broker gets a new certificate.
TEMPORARY_CODES = {9, 10}


def tls_failure(error: BaseException, address: object) -> TlsFailure | None:
    """Return what a TLS error of a connection to `address` means; `None` if it is not one."""
    match error:
        case ssl.SSLCertVerificationError():
            text = NOT_TRUSTED.format(address=address, reason=error.verify_message.rstrip("."))
            return TlsFailure(text, error.verify_code in TEMPORARY_CODES)
        case ssl.SSLEOFError() | ssl.SSLZeroReturnError() | ssl.SSLSyscallError():
            reason = "EOF"
        case ssl.SSLError():
            reason = str(getattr(error, "reason", None) or error)
        case _:
            # With TLS 1.3 an alert comes after the handshake; pika keeps it as text then.
            if (found := re.search(r"\[SSL: (\w+)\]|\b(SSLEOFError)\b", str(error.args))) is None:
                return None
            reason = found[1] or "EOF"
    sentence = next((sentence for pattern, sentence in MEANINGS.items() if re.search(pattern, reason)), OTHER)
    return TlsFailure(sentence.format(address=address, reason=reason), sentence is INTERRUPTED)
