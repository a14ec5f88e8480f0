"""`amqps`: the broker's certificate is checked against its authority and its name."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import uvloop

from amqpworker import App, ConfigError, InvalidArguments, SendError
from amqpworker.testing.processes import free_ports
from tests.certificates import make_authority, make_certificate
from tests.clients import Client, failure_of
from tests.conftest import TEST_CONFIG, throw_away
from tests.integration.tasks import echo_of, messages
from tests.nodes import Node
from tests.support import Broker

MakeApp = Callable[..., App]
MakeClient = Callable[[App], Client]


@dataclass(frozen=True)
class Secured:
    """A node that speaks TLS, and small frames; `ca` is the authority to trust, `other_ca` a stranger's."""

    node: Node
    port: int
    ca: Path
    other_ca: Path

    def url(self, host: str = "localhost", scheme: str = "amqps") -> str:
        return f"{scheme}://guest:guest@{host}:{self.port}/"


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    folder = tmp_path_factory.mktemp("tls")
    ca, other_ca = make_authority(folder, "authority"), make_authority(folder, "stranger")
    certificate, key = make_certificate(folder, ca, "localhost")
    (port,) = free_ports(1)
    extra = f"""
    frame_max = 8192
    listeners.ssl.1 = 127.0.0.1:{port}
    ssl_options.cacertfile = {ca}
    ssl_options.certfile = {certificate}
    ssl_options.keyfile = {key}
    """
    node = Node(folder / "node", extra_config=TEST_CONFIG + "\n".join(map(str.strip, extra.splitlines())), tied=True)
    try:
        yield Secured(node.start(), port, ca, other_ca)
    finally:
        throw_away(node)


def test_a_broker_with_the_right_certificate_is_trusted(make_app: MakeApp, secured: Secured) -> None:
    app = make_app(secured.url(), tls_ca=secured.ca)
    echo = echo_of(app, "secure")
    echo.send("x")
    app.send_many(messages(echo, 500))
    echo.send("y" * 500_000)
    assert Broker(secured.node, "/").count("secure") == 502


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_parent_and_child_share_no_secure_connection(make_app: MakeApp, secured: Secured) -> None:
    app = make_app(secured.url(), tls_ca=secured.ca)
    echo = echo_of(app, "forked")
    echo.send("x")
    pid = os.fork()
    if pid == 0:
        try:
            echo.send("child")
            app.close()
            os._exit(0)
        finally:
            os._exit(1)
    for _ in range(20):
        echo.send("x")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    echo.send("x")
    assert Broker(secured.node, "/").count("forked") == 23


REFUSED = {
    "another name": (
        "127.0.0.1",
        "ca",
        "amqps",
        "The certificate of 127.0.0.1:{port} is not trusted: IP address mismatch, certificate is not valid for '127.0.0.1'.",
    ),
    "an unknown authority": (
        "localhost",
        "other_ca",
        "amqps",
        "The certificate of localhost:{port} is not trusted: self-signed certificate in certificate chain.",
    ),
    "no TLS at all": (
        "localhost",
        "ca",
        "amqp",
        "The server at localhost:{port} does not speak AMQP 0-9-1: check the port.",
    ),
}


@pytest.mark.parametrize("why", REFUSED)
def test_what_cannot_be_trusted_is_refused_in_one_sentence(
    make_app: MakeApp, make_client: MakeClient, secured: Secured, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    host, ca, scheme, told = REFUSED[why]
    app = make_app(secured.url(host, scheme), tls_ca=getattr(secured, ca), connect_timeout=2.0)
    kind, text, _ = failure_of(make_client(app).send(echo_of(app).message("x")))
    assert (kind, text) == (ConfigError, told.format(port=secured.port))
    assert "Traceback" not in caplog.text


def test_a_port_without_tls_is_named_as_the_reason(
    make_app: MakeApp, make_client: MakeClient, secured: Secured
) -> None:
    app = make_app(f"amqps://127.0.0.1:{secured.node.ports.amqp}/", tls_ca=secured.ca)
    kind, text, _ = failure_of(make_client(app).send(echo_of(app).message("x")))
    reported = (
        f"127.0.0.1:{secured.node.ports.amqp} does not speak TLS 1.2 or later (WRONG_VERSION_NUMBER): is the port correct "
        "(usually 5671), or should the URL begin with amqp://?"
    )
    assert (kind, text) == (ConfigError, reported)


def test_certificate_files_that_cannot_be_read_are_reported_without_a_traceback(
    make_app: MakeApp, make_client: MakeClient, secured: Secured, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text("nonsense")
    reasons = {nonsense: "NO_CERTIFICATE_OR_CRL_FOUND", tmp_path / "missing.pem": "No such file or directory"}
    for wrong, reason in reasons.items():
        app = make_app(secured.url(), tls_ca=wrong)
        kind, text, _ = failure_of(make_client(app).send(echo_of(app).message("x")))
        assert (kind, text) == (ConfigError, f"The file of the setting tls_ca, '{wrong}', cannot be used: {reason}.")
    assert "Traceback" not in caplog.text


def test_headers_that_do_not_fit_into_the_frames_of_this_broker_are_refused_and_others_are_sent(
    make_app: MakeApp, secured: Secured
) -> None:
    app = make_app(secured.node.url())
    echo = echo_of(app, "frames")
    large = echo.options(headers={"large": "x" * 10_000}).message("x")
    for _ in range(2):  # before the connection, and on it
        first, refused, last = app.send_each([echo.message("a"), large, echo.message("b")])
        assert not isinstance(first, SendError)
        assert not isinstance(last, SendError)
        assert isinstance(refused, SendError)
        assert isinstance(refused.__cause__, InvalidArguments)
        assert "only 8170 are allowed" in str(refused)
    echo.send("z" * 100_000)


@pytest.mark.parametrize("entered", [False, True])
def test_coroutines_in_a_loop_of_uvloop_send_over_tls(make_app: MakeApp, secured: Secured, entered: bool) -> None:
    app = make_app(secured.url(), tls_ca=secured.ca)
    echo = echo_of(app, f"secure-{entered}")

    async def send() -> None:
        await echo.asend("x" * 500_000)
        await app.asend_many(messages(echo, 500))

    async def enter() -> None:
        async with app:
            await send()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(enter() if entered else send())
    assert Broker(secured.node, "/").count(f"secure-{entered}") == 501
