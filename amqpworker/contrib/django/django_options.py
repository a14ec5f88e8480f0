"""
The OPTIONS of a backend in `TASKS`, checked, and the app that they name or describe.

Decides that an app is made once per process, and that its runs close old connections to databases.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from django.apps import apps
from django.core.exceptions import ImproperlyConfigured
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
    url: str | None = None
    results: str | None = None
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
            raise ImproperlyConfigured(f"{place}[{name!r}] must be of type {wanted.__name__}, got {value!r:.60}.")
    if given.get("app") is not None and (both := given.keys() & {"url", "results", "namespace"}):
        raise ImproperlyConfigured(f"{place} has 'app' and {min(both)!r}: the app has its own.")
    return BackendOptions(**given)


@dataclass(frozen=True, slots=True)
class ProjectApp:
    """The app of a backend, and the records of what is enqueued with it."""

    app: App
    records: SenderRecords


def project_app(alias: str, options: BackendOptions) -> ProjectApp:
    """Return the app of a backend, the same for all threads; raises ImproperlyConfigured if there is none."""
    try:
        config = apps.get_app_config(LABEL)
    except LookupError:
        raise ImproperlyConfigured(
            "Add 'amqpworker.contrib.django' to INSTALLED_APPS: TASKS uses its backend."
        ) from None
    kept: ProjectApp = config.kept(f"{alias} {options!r}", lambda: _made(alias, options))
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
