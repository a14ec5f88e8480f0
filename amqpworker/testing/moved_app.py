"""
An app that uses another broker and another result store than its own, in this process and in those that it starts.

Decides what the worker processes of a test need to know: a module, `pooled_app`, makes the same app there.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from amqpworker.broker.address import addresses
from amqpworker.broker.admin import Admin
from amqpworker.broker.publisher import Publisher
from amqpworker.client.app_parts import AppParts
from amqpworker.client.producer import Producer

if TYPE_CHECKING:
    from amqpworker.app import App

VARIABLE = "AMQPWORKER_POOLED_APP"
"""The variable by which the processes of a test find the app, as JSON."""

POOLED = "amqpworker.testing.pooled_app:app"
"""What they import instead of the app's own module."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where an app sends and stores: `target` is its MODULE:APP, and `path` is where modules are found."""

    target: str
    url: str
    results: str | None
    path: tuple[str, ...] = ()

    def dump(self) -> str:
        """Return it as JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def load(cls, text: str) -> Place:
        """Return what `dump` has written."""
        fields: dict[str, Any] = json.loads(text)
        return cls(fields["target"], fields["url"], fields["results"], tuple(fields["path"]))


def parts_at(app: App, place: Place) -> AppParts:
    """Return the parts of an app that uses the broker and the store of a place."""
    brokers = addresses(place.url)
    producer = Producer(app.plan, app.settings, partial(Publisher, brokers, app.settings))
    return AppParts(
        url=place.url,
        addresses=brokers,
        producer=producer,
        async_made={},
        results=place.results,
        stored_results={},
    )


def declare_all(app: App) -> None:
    """Declare everything that an app needs on its broker, whatever its settings: for a virtual host that is new."""
    with Admin(app.url, app.settings) as admin:
        admin.declare(app.plan.whole(), lambda _: None)


@contextmanager
def moved_app(app: App, target: str, url: str, results: str | None) -> Iterator[App]:
    """Have an app use this broker and this result store during a block, also in processes that start meanwhile."""
    place = Place(target, url, results, tuple(each for each in sys.path if each))
    former, before = app.exchange_parts(parts_at(app, place)), os.environ.get(VARIABLE)
    os.environ[VARIABLE] = place.dump()
    try:
        if not app.settings.declare:
            declare_all(app)
        yield app
    finally:
        if before is None:
            del os.environ[VARIABLE]
        else:
            os.environ[VARIABLE] = before
        try:
            app.close()
        finally:
            app.exchange_parts(former)
