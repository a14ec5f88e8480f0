"""
The Django app: what a process keeps of the task backends in `TASKS`.

Django creates the backends once per thread; the apps of amqpworker that they send with are kept here, once per process.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.apps import AppConfig, apps

LABEL = "amqpworker"


class AmqpWorkerConfig(AppConfig):
    """Listed in INSTALLED_APPS as `amqpworker.contrib.django`."""

    name = "amqpworker.contrib.django"
    label = LABEL
    verbose_name = "amqpworker"

    def __init__(self, app_name: str, app_module: Any) -> None:
        super().__init__(app_name, app_module)
        self._kept: dict[str, Any] = {}

    def ready(self) -> None:
        """Show results in the admin, if the project has it: on its default site."""
        if apps.is_installed("django.contrib.admin"):
            # Both need apps that are loaded.
            from django.contrib import admin

            from amqpworker.contrib.django.models import Result
            from amqpworker.contrib.django.result_pages import ResultAdmin

            admin.site.register(Result, ResultAdmin)

    def kept(self, key: str, make: Callable[[], Any]) -> Any:
        """Return what this process keeps with this key, the same for all threads: an app, and what belongs to it."""
        # Without a lock, since `make` imports modules, which have locks of their own: of two, the first one stays.
        found = self._kept.get(key)
        return found if found is not None else self._kept.setdefault(key, make())
