"""A broker that allows fewer channels on a connection than are needed: an error states so, with both numbers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from amqpworker import App, ConfigError
from tests.cli import environment, run
from tests.clients import Client, failure_of, result_of
from tests.conftest import TEST_CONFIG, throw_away
from tests.integration.tasks import echo_of
from tests.nodes import Node
from tests.pools import SHOP
from tests.support import wait_until
from tests.workers import running

MakeApp = Callable[..., App]
MakeClient = Callable[[App], Client]

ADVICE = (
    " per connection (channel_max). A worker requires one for each of its queues, two if the queue is bounded, and 2 more, "
    "a publisher up to 16: raise channel_max in rabbitmq.conf, or consume from fewer queues in one pool."
)


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    node = Node(tmp_path_factory.mktemp("narrow"), extra_config=f"{TEST_CONFIG}\nchannel_max = 2\n", tied=True)
    try:
        yield node.start()
    finally:
        throw_away(node)


def allow(node: Node, channels: int) -> None:
    """Change what the next connections are allowed."""
    node.rabbitmqctl("eval", f"application:set_env(rabbit, channel_max, {channels}).")


def test_what_has_no_channel_left_fails_at_once_and_names_channel_max_while_the_rest_continues(
    make_app: MakeApp, make_client: MakeClient, narrow: Node, caplog: pytest.LogCaptureFixture
) -> None:
    allow(narrow, 2)
    client = make_client(make_app(narrow.url(), send_timeout=30.0, call_timeout=30.0))
    echo = echo_of(client.app)
    result_of(client.send(echo.message("x")))
    text = f"No channel is left for the calls of this process: this broker allows 2{ADVICE}"
    for _ in range(2):
        assert failure_of(client.call(echo.message("x"))) == (ConfigError, text, None)
        result_of(client.send(echo.message("y")))
    assert "connection ended" not in caplog.text


def test_no_channel_for_the_first_send_is_an_error_that_names_channel_max(
    make_app: MakeApp, make_client: MakeClient, narrow: Node
) -> None:
    allow(narrow, 1)
    client = make_client(make_app(narrow.url(), send_timeout=30.0))
    echo = echo_of(client.app)
    for _ in range(2):
        kind, text, _ = failure_of(client.send(echo.message("x")))
        assert kind is ConfigError
        # It depends on the moment whether the only channel is for declaring or for sending.
        assert re.fullmatch(r"No channel is left for .*: this broker allows 1" + re.escape(ADVICE), text)


def test_a_pool_that_has_no_channel_for_any_queue_ends_and_names_channel_max(tmp_path: Path, narrow: Node) -> None:
    allow(narrow, 1)
    (tmp_path / "shop.py").write_text(SHOP.format(url=narrow.url(), drain=1))
    ended = run(tmp_path, environment(), "worker", "shop:app", "-p", "1")
    assert ended.err.splitlines()[-1].startswith("amqpworker: No channel is left for consuming from queue 'work'")
    assert "allows 1 per connection (channel_max)" in ended.err.splitlines()[-1]
    assert ended.code == 2


def test_a_worker_that_has_channels_for_some_of_its_queues_consumes_these_and_names_channel_max_for_the_rest(
    make_app: MakeApp, narrow: Node, caplog: pytest.LogCaptureFixture
) -> None:
    allow(narrow, 3)
    app = make_app(narrow.url())
    for name in "abcd":
        app.task(name=name, queue=name)(lambda: None)
    with running(app, wait=False) as worker:
        wait_until(lambda: worker.process.consumer.ever_consumed and "queue_not_consumed" in caplog.text)
    assert "allows 3 per connection (channel_max)" in caplog.text
