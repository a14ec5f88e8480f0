"""aio-pika's connection with our codec, as far as it needs no broker."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from amqpworker.broker.address import addresses
from amqpworker.broker.aio_connection import AioConnection, _url, check_aiormq_version
from amqpworker.errors import ConfigError
from amqpworker.settings import Settings


@pytest.mark.parametrize("version", ["7.2.4", "7.2.5", "7.2.99"])
def test_versions_of_aiormq_that_were_tested_are_accepted(version: str) -> None:
    check_aiormq_version(version)


@pytest.mark.parametrize("version", ["6.9.4", "7.1.6", "7.2.3", "7.3.0", "8.0.0"])
def test_any_other_version_of_aiormq_is_refused_in_one_line_that_names_it(version: str) -> None:
    with pytest.raises(ImportError) as refused:
        check_aiormq_version(version)
    text = f"amqpworker requires aiormq>=7.2.4,<7.3, but aiormq {version} is installed."
    assert str(refused.value) == text


def test_the_range_of_aiormq_is_the_one_that_the_package_requires() -> None:
    assert '"aiormq>=7.2.4,<7.3"' in Path("pyproject.toml").read_text()


@pytest.mark.parametrize(
    "url",
    [
        "amqp://guest:guest@localhost:5672/",
        "amqp://me:p%40ss%2Fw%3Aord%25@localhost/a%2Fb",
        "amqp://m%C3%A9:g%2Bh%20i@[::1]:1234/vh%C3%B6st",
        "amqps://user:secret@broker.example/",
    ],
)
def test_login_host_and_virtual_host_reach_aiormq_as_they_are_in_the_address(url: str) -> None:
    (address,) = addresses(url)
    found = _url(address, Settings(heartbeat=7))
    assert (found.user, found.password, found.host, found.port) == (
        address.user,
        address.password,
        address.host,
        address.port,
    )
    # As aiormq reads it.
    assert found.path[1:].replace("%2F", "/") == address.virtual_host
    assert dict(found.query) == {"heartbeat": "7", "auth": "plain"}


def test_a_virtual_host_that_aiormq_would_take_for_another_is_refused() -> None:
    (address,) = addresses("amqp://guest:guest@localhost:1/a%252Fb")

    async def connect() -> None:
        await AioConnection(address, Settings(), lambda _: None, lambda: None, lambda _: None).connect("label")

    with pytest.raises(ConfigError, match=r"virtual host 'a%2Fb'.* do not enter the app"):
        asyncio.run(connect())


def test_a_certificate_is_the_login_if_the_url_names_no_user() -> None:
    (address,) = addresses("amqps://broker.example/")
    assert _url(address, Settings(tls_cert="cert.pem", tls_key="key.pem")).query["auth"] == "external"


def test_a_program_without_coroutines_loads_neither_asyncio_nor_aio_pika() -> None:
    program = """
import sys
from amqpworker import App
app = App("amqp://localhost:1")
@app.task(name="a.b")
def work(x: int) -> int: return x
work.message(1)
app.producer.publisher
print(sorted({"aio_pika", "aiormq"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
