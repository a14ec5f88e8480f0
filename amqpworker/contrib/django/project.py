"""
What workers import: `amqpworker.contrib.django.project:default` is the app of the backend `default` in `TASKS`.

Sets Django up, and imports the `tasks` modules of all apps in INSTALLED_APPS. Other backends are found by their alias.
"""

from __future__ import annotations

from typing import Any

import django
from django.conf import settings
from django.utils.module_loading import autodiscover_modules

TARGET = "amqpworker.contrib.django.project"


def __getattr__(alias: str) -> Any:
    """Return the app of a backend by its alias (PEP 562)."""
    if alias.startswith("__") or alias not in getattr(settings, "TASKS", {}):
        raise AttributeError(f"TASKS of {settings.SETTINGS_MODULE} has no backend {alias!r}", name=alias)
    from amqpworker.contrib.django.backend import app_of_backend

    app = app_of_backend(alias)
    autodiscover_modules("tasks")
    return app


django.setup()
