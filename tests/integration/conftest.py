"""Fixtures for sending and working against the shared node."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from amqpworker import App, Settings
from tests.support import Broker


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
