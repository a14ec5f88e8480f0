"""Certificates for tests: authorities, and what they have signed."""

from __future__ import annotations

import subprocess
from pathlib import Path

__all__ = ["encrypt_key", "make_authority", "make_certificate"]


def openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True, timeout=60)


def make_authority(folder: Path, name: str) -> Path:
    """Make a certificate authority and return its certificate."""
    certificate = folder / f"{name}.pem"
    key = str(folder / f"{name}.key")
    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}", "-keyout", key,
            "-out", str(certificate))  # fmt: skip
    return certificate


def make_certificate(folder: Path, authority: Path, host: str, *, expired: bool = False) -> tuple[Path, Path]:
    """Make a certificate for a host or a user, and its key; one that has `expired` did so long ago."""
    certificate, key, request = (folder / f"{host}.{kind}" for kind in ("pem", "key", "csr"))
    names = folder / f"{host}.ext"
    names.write_text(f"subjectAltName=DNS:{host}\n")
    openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={host}", "-keyout", str(key), "-out", str(request))
    if expired:
        sign_in_the_past(folder, authority, request, certificate)
        return certificate, key
    openssl("x509", "-req", "-in", str(request), "-CA", str(authority), "-CAkey", str(authority.with_suffix(".key")),
            "-CAcreateserial", "-days", "2", "-extfile", str(names), "-out", str(certificate))  # fmt: skip
    return certificate, key


def sign_in_the_past(folder: Path, authority: Path, request: Path, certificate: Path) -> None:
    """Sign a request for a time that is over, which only `openssl ca` can."""
    issued = folder / "issued"
    issued.mkdir(exist_ok=True)
    (issued / "index.txt").touch()
    config = issued / "openssl.cnf"
    config.write_text(
        f"""
        [ca]
        default_ca = ours
        [ours]
        database = {issued}/index.txt
        new_certs_dir = {issued}
        rand_serial = yes
        default_md = sha256
        policy = any
        [any]
        commonName = supplied
        """
    )
    openssl("ca", "-batch", "-config", str(config), "-cert", str(authority), "-keyfile",
            str(authority.with_suffix(".key")), "-startdate", "20200101000000Z", "-enddate", "20200201000000Z", "-in",
            str(request), "-out", str(certificate), "-notext")  # fmt: skip


def encrypt_key(key: Path, passphrase: str) -> Path:
    """Return a copy of a key that only opens with a pass phrase."""
    encrypted = key.with_suffix(".encrypted")
    openssl("rsa", "-aes256", "-passout", f"pass:{passphrase}", "-in", str(key), "-out", str(encrypted))
    return encrypted
