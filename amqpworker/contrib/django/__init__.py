"""
amqpworker as the task backend of a Django project (docs/integrations/django.md).

Names are loaded at their first use: Django imports this package before its apps are ready.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from amqpworker.contrib.django.backend import AmqpWorkerBackend
    from amqpworker.contrib.django.on_commit import send_on_commit
    from amqpworker.contrib.django.task_decorator import task

__all__ = ["AmqpWorkerBackend", "send_on_commit", "task"]

_HOMES = {
    "AmqpWorkerBackend": "amqpworker.contrib.django.backend",
    "send_on_commit": "amqpworker.contrib.django.on_commit",
    "task": "amqpworker.contrib.django.task_decorator",
}

if not TYPE_CHECKING:  # a type checker is to see which names there are

    def __getattr__(name: str) -> Any:
        """Load a public name (PEP 562)."""
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}", name=name)
        return getattr(import_module(_HOMES[name]), name)
