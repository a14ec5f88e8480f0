"""Fixtures for sending and working against the shared node."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from amqpworker import App, Settings
from tests.clients import CLIENTS, Client, clients_of
from tests.support import Broker

MakeApp = Callable[..., App]


@pytest.fixture
def make_app(vhost: Broker) -> Iterator[Callable[..., App]]:
    """Make apps on the test's virtual host, or on another `url`; keywords are settings. They are closed at the end."""
    made: list[App] = []

    def make(url: str | None = None, *, results: str | None = None, **settings: Any) -> App:
        chosen = Settings(**{"send_timeout": 5.0, "call_timeout": 5.0, "connect_timeout": 5.0, **settings})
        made.append(App(vhost.url if url is None else url, results=results, settings=chosen))
        return made[-1]

    yield make
    for app in made:
        app.close()


@pytest.fixture
def app(make_app: Callable[..., App]) -> App:
    """An app on the test's virtual host."""
    return make_app()


@pytest.fixture(params=CLIENTS.values(), ids=CLIENTS.keys())
def make_client(request: pytest.FixtureRequest, make_app: MakeApp) -> Iterator[Callable[[App], Client]]:
    """Make users of apps, of each of the three kinds in turn. They are closed before the apps."""
    with clients_of(request.param) as make:
        yield make


@pytest.fixture
def client(make_client: Callable[[App], Client], app: App) -> Client:
    """A user of an app on the test's virtual host."""
    return make_client(app)


@pytest.fixture
def stranger(vhost: Broker) -> Iterator[Callable[..., str]]:
    """Make a user with these permissions only, and return the URL of the virtual host for it."""
    name = f"user-of-{vhost.vhost}"

    def make(configure: str = "", write: str = "", read: str = "") -> str:
        vhost.management.create_user(name, "sesame-47")
        vhost.management.set_permissions(vhost.vhost, name, configure, write, read)
        return vhost.node.url(vhost.vhost, name, "sesame-47")

    yield make
    vhost.management.delete_user(name)
