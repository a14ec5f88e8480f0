"""
The OPTIONS of a backend in `TASKS`, checked, and the app that they name or describe.

Decides that an app is made once per process, the same for all backends with the same broker, store and namespace, and that its
runs close old connections to databases.
"""

from __future__ import annotations

import importlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from django.apps import apps
from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from django.db.utils import DEFAULT_DB_ALIAS

from amqpworker.app import App
from amqpworker.contrib.django.apps import LABEL
from amqpworker.contrib.django.database_connections import database_connections
from amqpworker.contrib.django.sender_records import SenderRecords
from amqpworker.errors import ConfigError
from amqpworker.routing.topology import DEFAULT_NAMESPACE
from amqpworker.worker.app_loader import split_target


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendOptions:
    """
    What OPTIONS may have: `app`, or `url`, `results` and `namespace` of an app that the backend makes.

    `on_commit` is whether a task enqueued in a transaction of `database` is sent once that has committed.
    """

    app: str | None = None
    url: str | None = field(default=None, repr=False)  # may have passwords, which Django's error pages would show
    results: str | None = field(default=None, repr=False)
    namespace: str = DEFAULT_NAMESPACE
    on_commit: bool = True
    database: str = DEFAULT_DB_ALIAS


def checked_options(alias: str, given: Mapping[str, Any]) -> BackendOptions:
    """Return the OPTIONS of a backend; raises ImproperlyConfigured if one does not exist or is not valid."""
    place = f"TASKS[{alias!r}]['OPTIONS']"
    known = {one.name: one.default for one in fields(BackendOptions)}
    for name, value in given.items():
        if name not in known:
            raise ImproperlyConfigured(f"{place} has no option {name!r}: it may have {', '.join(known)}.")
        wanted = type(known[name]) if known[name] is not None else str
        if not isinstance(value, wanted) and (value is not None or known[name] is not None):
            raise ImproperlyConfigured(
                f"{place}[{name!r}] must be of type {wanted.__name__}, not {type(value).__name__}."
            )
    if given.get("app") is not None and (both := given.keys() & {"url", "results", "namespace"}):
        raise ImproperlyConfigured(f"{place} has 'app' and {min(both)!r}: the app has its own.")
    options = BackendOptions(**given)
    if options.database not in connections.settings:
        raise ImproperlyConfigured(f"{place}['database']: DATABASES has no {options.database!r}.")
    return options


def declare_queues(alias: str, app: App, queues: Any) -> None:
    """Have the queues of QUEUES declared; raises ImproperlyConfigured if they are none: Django takes a text for its letters."""
    place = f"TASKS[{alias!r}]['QUEUES']"
    if isinstance(queues, str) or not isinstance(queues, Collection):
        raise ImproperlyConfigured(f"{place} must be a list of names, such as ['emails'], not {queues!r}.")
    for queue in queues:
        try:
            app.queue(queue)
        except ConfigError as error:
            raise ImproperlyConfigured(f"{place}: {error}") from error


@dataclass(frozen=True, slots=True)
class ProjectApp:
    """The app of backends, the records of what is enqueued with it, and its tasks of Django by the paths of their functions."""

    app: App
    records: SenderRecords
    tasks: dict[str, Any] = field(default_factory=dict)


def project_app(alias: str, options: BackendOptions) -> ProjectApp:
    """Return the app of a backend, the same for all threads; raises ImproperlyConfigured if there is none."""
    try:
        config = apps.get_app_config(LABEL)
    except LookupError:
        raise ImproperlyConfigured(
            "Add 'amqpworker.contrib.django' to INSTALLED_APPS: TASKS uses its backend."
        ) from None
    key = (options.app, options.url, options.results, options.namespace)
    kept: ProjectApp = config.kept(key, lambda: _made(alias, options))
    return kept


def _made(alias: str, options: BackendOptions) -> ProjectApp:
    try:
        if options.app is not None:
            app = _named(options.app)
        else:
            app = App(options.url, results=options.results, namespace=options.namespace)
    except ConfigError as error:
        raise ImproperlyConfigured(f"TASKS[{alias!r}]['OPTIONS']: {error}") from error
    if database_connections not in app.middleware:
        app.middleware = (database_connections, *app.middleware)
    return ProjectApp(app, SenderRecords(app))


def _named(target: str) -> App:
    module_name, name = split_target(target)
    found = getattr(importlib.import_module(module_name), name, None)
    if not isinstance(found, App):
        raise ConfigError(
            f"{target!r} does not name an App. If that module has tasks of Django as well, create the app above the first of them."
        )
    return found
