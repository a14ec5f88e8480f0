"""
The pytest plugin `amqpworker`: the fixtures `amqp_inline`, `amqp_node`, `amqp_app` and `amqp_worker` (docs/testing.md).

Decides which app the tests use. pytest imports this module at its start, so that it imports nothing else of the package, and
nothing of the user's app, before a test needs it.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, NamedTuple

import pytest

if TYPE_CHECKING:
    from amqpworker.app import App
    from amqpworker.testing.external_broker import ExternalBroker
    from amqpworker.testing.inline import Inline
    from amqpworker.testing.node import Node
    from amqpworker.testing.workers import Workers

OPTION = "amqpworker_app"
VARIABLE = "AMQPWORKER_APP"
MARKER = "amqp_inline"
NO_APP = (
    f"These tests do not know the app: name it as MODULE:APP, such as {OPTION} = shop.tasks:app in the pytest section of the "
    f"configuration, or in the variable {VARIABLE}."
)


class NamedApp(NamedTuple):
    """The app of the tests, and the MODULE:APP that names it."""

    target: str
    app: App


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that names the app."""
    parser.addini(OPTION, f"the app of the tests, as MODULE:APP; the variable {VARIABLE} has priority", default="")


def pytest_configure(config: pytest.Config) -> None:
    """Add the marker."""
    config.addinivalue_line(
        "markers", f"{MARKER}(eager=True): if eager is false, messages wait until amqp_inline.run() or advance(…)"
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Check the markers: a mistake ends pytest before the first test."""
    for item in items:
        if (marker := item.get_closest_marker(MARKER)) is not None:
            _check(marker, item)


def _check(marker: pytest.Mark, item: pytest.Item) -> None:
    unknown = [str(one) for one in marker.kwargs if one != "eager"]
    if marker.args or unknown or not isinstance(marker.kwargs.get("eager", True), bool):
        given = ", ".join([*map(repr, marker.args), *(f"{name}={value!r}" for name, value in marker.kwargs.items())])
        raise pytest.UsageError(
            f"{item.nodeid}: @pytest.mark.{MARKER}({given}): the marker takes only eager=True or eager=False."
        )
    if MARKER not in getattr(item, "fixturenames", ()):
        raise pytest.UsageError(f"{item.nodeid}: @pytest.mark.{MARKER} is for tests with the fixture {MARKER}.")


@contextmanager
def _in_one_line(place: str) -> Iterator[None]:
    """Fail the test with the text of a ConfigError, without a traceback: the user can fix it outside the tests."""
    from amqpworker.errors import ConfigError

    try:
        yield
    except ConfigError as error:
        raise pytest.fail.Exception(f"{place}: {error}", pytrace=False) from None


@pytest.fixture(scope="session")
def _amqp_named_app(pytestconfig: pytest.Config) -> NamedApp:
    """Return the app of the tests, which is imported now."""
    target = os.environ.get(VARIABLE) or str(pytestconfig.getini(OPTION)).strip()
    if not target:
        pytest.fail(NO_APP, pytrace=False)
    from amqpworker.worker.app_loader import load_app

    with _in_one_line(f"The app of these tests ({OPTION} or {VARIABLE})"):
        return NamedApp(target, load_app(target))


@pytest.fixture
def amqp_inline(request: pytest.FixtureRequest, _amqp_named_app: NamedApp) -> Iterator[Inline]:
    """Run the tasks of the app where they are sent, without a broker."""
    from amqpworker.testing.inline import running_inline

    marker = request.node.get_closest_marker(MARKER)
    with running_inline(_amqp_named_app.app, eager=marker is None or marker.kwargs.get("eager", True)) as inline:
        yield inline


@pytest.fixture(scope="session")
def amqp_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node | ExternalBroker]:
    """Return a private RabbitMQ node, or the broker of AMQPWORKER_URL, if AMQPWORKER_MANAGEMENT is where its API is."""
    from amqpworker.testing.external_broker import ExternalBroker
    from amqpworker.testing.shared_node import shared_node

    url, management = os.environ.get("AMQPWORKER_URL"), os.environ.get("AMQPWORKER_MANAGEMENT")
    if management and not url:
        pytest.fail("AMQPWORKER_MANAGEMENT is set, and AMQPWORKER_URL is not: set both, or neither.", pytrace=False)
    if url and management:
        yield ExternalBroker(url, management)
        return
    base = tmp_path_factory.getbasetemp()
    # The processes of pytest-xdist have folders of their own, in one folder.
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "amqp-node"
    with ExitStack() as stack:
        with _in_one_line("amqp_node"):
            node = stack.enter_context(shared_node(folder))
        yield node


@pytest.fixture
def amqp_app(
    request: pytest.FixtureRequest,
    amqp_node: Node | ExternalBroker,
    _amqp_named_app: NamedApp,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[App]:
    """Return the app, which uses a virtual host of its own for this test; its results are in a file of this test."""
    if MARKER in request.fixturenames:
        pytest.fail("A test uses amqp_inline, without a broker, or amqp_app, with one: not both.", pytrace=False)
    from amqpworker.testing.moved_app import moved_app

    target, app = _amqp_named_app
    vhost = f"pytest-{uuid.uuid4().hex[:12]}"
    results = None if app.results is None else f"sqlite:///{tmp_path_factory.mktemp('amqp-results')}/results.db"
    with _in_one_line("amqp_app"):
        amqp_node.create_vhost(vhost)
    try:
        with moved_app(app, target, amqp_node.url(vhost), results):
            yield app
    finally:
        amqp_node.delete_vhost(vhost)


@pytest.fixture
def amqp_worker(amqp_app: App) -> Iterator[Workers]:
    """Return what runs a worker of the app until the test's end: `amqp_worker(processes=0, threads=4)`, 0 in this process."""
    from amqpworker.testing.workers import Workers

    workers = Workers(amqp_app)
    try:
        yield workers
    finally:
        workers.stop()
