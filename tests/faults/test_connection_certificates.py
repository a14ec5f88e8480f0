"""A broker that wants a certificate of its clients, and knows them by it: EXTERNAL, and each way in which that fails."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from amqpworker import AccessRefused, App, ConfigError
from amqpworker.client import carriers
from amqpworker.testing.processes import free_ports
from tests.certificates import encrypt_key, make_authority, make_certificate
from tests.clients import Client, failure_of
from tests.conftest import TEST_CONFIG, throw_away
from tests.integration.tasks import echo_of
from tests.nodes import Node
from tests.support import Broker, wait_until

MakeApp = Callable[..., App]
MakeClient = Callable[[App], Client]

pytestmark = pytest.mark.timeout(120)


@dataclass(frozen=True)
class Guarded:
    """A node that accepts no client without a certificate, with the files of several clients."""

    node: Node
    port: int
    folder: Path

    def url(self, login: str = "", vhost: str = "") -> str:
        return f"amqps://{login}localhost:{self.port}/{vhost}"

    def settings(self, who: str | None) -> dict[str, Any]:
        """Return the settings of a client with a certificate."""
        own = {} if who is None else {"tls_cert": self.folder / f"{who}.pem", "tls_key": self.folder / f"{who}.key"}
        return {"tls_ca": self.folder / "authority.pem", **own}


@pytest.fixture(scope="module", params=["tlsv1.3", "tlsv1.2"])
def guarded(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("guarded")
    ca, other_ca = make_authority(folder, "authority"), make_authority(folder, "elsewhere")
    certificate, key = make_certificate(folder, ca, "localhost")
    make_certificate(folder, ca, "shop")
    make_certificate(folder, ca, "nobody")
    make_certificate(folder, ca, "expired", expired=True)
    make_certificate(folder, other_ca, "stranger")
    (port,) = free_ports(1)
    extra = f"""
    listeners.ssl.1 = 127.0.0.1:{port}
    ssl_options.cacertfile = {ca}
    ssl_options.certfile = {certificate}
    ssl_options.keyfile = {key}
    ssl_options.verify = verify_peer
    ssl_options.fail_if_no_peer_cert = true
    ssl_options.versions.1 = {request.param}
    ssl_cert_login_from = common_name
    auth_mechanisms.1 = EXTERNAL
    auth_mechanisms.2 = PLAIN
    """
    node = Node(
        folder / "node",
        extra_config=TEST_CONFIG + "\n".join(map(str.strip, extra.splitlines())),
        plugins=["rabbitmq_auth_mechanism_ssl"],
        tied=True,
    )
    try:
        node.start()
        node.management.request("PUT", "users", "shop", body={"password_hash": "", "tags": ""})
        node.management.set_permissions("/", "shop")
        yield Guarded(node, port, folder)
    finally:
        throw_away(node)


def test_who_has_a_certificate_and_names_no_user_is_known_by_it(make_app: MakeApp, guarded: Guarded) -> None:
    echo = echo_of(make_app(guarded.url(), **guarded.settings("shop")), "external")
    echo.send("x")
    assert Broker(guarded.node, "/").count("external") == 1
    wait_until(lambda: [one["user"] for one in guarded.node.management.connections("/")] == ["shop"])


def test_who_names_a_user_logs_in_with_a_password_whatever_the_certificate(make_app: MakeApp, guarded: Guarded) -> None:
    echo = echo_of(make_app(guarded.url("guest:guest@"), **guarded.settings("shop")), "plain")
    echo.send("x")
    assert Broker(guarded.node, "/").count("plain") == 1


REFUSED: dict[str, tuple[str | None, type[Exception], str]] = {
    "none": (None, ConfigError, r"requires a client certificate.*tls_cert and tls_key"),
    "one that has expired": ("expired", ConfigError, r"our certificate.*tls_cert.*expired"),
    "one of an authority that it does not know": ("stranger", ConfigError, r"our certificate.*tls_cert.*authority"),
    "one that belongs to no user": ("nobody", AccessRefused, r"our certificate.*tls_cert.*no user"),
}


@pytest.mark.parametrize("why", REFUSED)
def test_a_certificate_that_is_not_accepted_is_reported_at_once_with_its_owner(
    make_app: MakeApp, make_client: MakeClient, guarded: Guarded, why: str
) -> None:
    who, kind, reported = REFUSED[why]
    app = make_app(guarded.url(), **guarded.settings(who))
    found, text, _ = failure_of(make_client(app).send(echo_of(app).message("x")))
    assert found is kind
    assert re.search(reported, text)
    assert "guest" not in text


def test_entering_with_a_certificate_that_is_not_accepted_fails_each_time(
    make_app: MakeApp, guarded: Guarded, monkeypatch: pytest.MonkeyPatch
) -> None:
    # On a busy machine the reset of a connection, with TLS 1.3, may overtake the reason in each attempt of the usual 2 s.
    monkeypatch.setattr(carriers, "ENTER_TIMEOUT", 60.0)

    async def enter(app: App) -> None:
        async with app:
            raise AssertionError("it was entered")

    for _ in range(8):
        with pytest.raises(ConfigError, match="our certificate"):
            asyncio.run(enter(make_app(guarded.url(), **guarded.settings("expired"))))


def test_a_virtual_host_that_the_user_of_a_certificate_may_not_access_is_reported_by_name(
    make_app: MakeApp, make_client: MakeClient, guarded: Guarded
) -> None:
    guarded.node.create_vhost("closed")
    app = make_app(guarded.url(vhost="closed"), **guarded.settings("shop"))
    found, text, _ = failure_of(make_client(app).send(echo_of(app).message("x")))
    assert found is AccessRefused
    assert (
        text == f"User 'shop' has no access to virtual host 'closed' at localhost:{guarded.port}, or it does not exist."
    )


def test_a_key_with_a_pass_phrase_is_an_error_and_no_question_on_the_terminal(guarded: Guarded) -> None:
    key = encrypt_key(guarded.folder / "shop.key", "sesame")
    program = f"""
from amqpworker import App, ConfigError, Settings
app = App({guarded.url()!r}, settings=Settings(tls_cert={str(guarded.folder / "shop.pem")!r}, tls_key={str(key)!r}))
@app.task(name="a", queue="a")
def a() -> None: ...
try:
    a.send()
except ConfigError as error:
    print(error)
"""
    # A session of its own has no terminal: the question would be for the standard input then.
    done = subprocess.run(
        [sys.executable, "-c", program], input="sesame\n", capture_output=True, text=True, timeout=30, check=False
    )
    assert re.search(r"tls_key.*pass phrase", done.stdout), done
    assert "Enter PEM" not in done.stdout + done.stderr


def test_a_broker_that_does_not_know_users_by_certificate_is_reported_as_such(
    make_app: MakeApp, guarded: Guarded
) -> None:
    node = guarded.node
    for listed, told in (("plain", "EXTERNAL"), ("external", "PLAIN")):
        mechanism = f"'{listed.upper()}'"
        node.rabbitmqctl("eval", f"application:set_env(rabbit, auth_mechanisms, [{mechanism}]).")
        login = "" if told == "EXTERNAL" else "guest:guest@"
        try:
            app = make_app(guarded.url(login), **guarded.settings("shop"))
            with pytest.raises(ConfigError, match=f"does not offer.* {told}"):
                echo_of(app).send("x")
        finally:
            node.rabbitmqctl("eval", "application:set_env(rabbit, auth_mechanisms, ['EXTERNAL', 'PLAIN']).")
