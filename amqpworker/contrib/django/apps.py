"""
The Django app: what a process keeps of the task backends in `TASKS`.

Django creates the backends once per thread; the apps of amqpworker that they send with are kept here, once per process.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from django.apps import AppConfig

from amqpworker.app import App

LABEL = "amqpworker"


class AmqpWorkerConfig(AppConfig):
    """Listed in INSTALLED_APPS as `amqpworker.contrib.django`."""

    name = "amqpworker.contrib.django"
    label = LABEL
    verbose_name = "amqpworker"

    def ready(self) -> None:
        """Do nothing: connections are opened when they are used."""

    def app_of(self, key: str, make: Callable[[], App]) -> App:
        """Return the app with this key, made once."""
        made = self.__dict__.setdefault("made", {})
        with self.__dict__.setdefault("lock", threading.RLock()):
            if key not in made:
                made[key] = make()
            app: App = made[key]
            return app
