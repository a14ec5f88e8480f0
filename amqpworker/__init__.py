"""
Background work on RabbitMQ: tasks, retries, delays and results that are not lost.

The flow of a message, which is also the layout:

    app ─ verbs ─ options          what users hold: `@app.task`, `send`, `call`, `options`
      │
      ▼
    task, publication, topology    decisions: arguments to JSON, a message to exchange, key and headers
      │                            (delay, retry, plan: when and where it goes on)
      ▼
    producer ─ broker.publisher    out: confirmed and not returned, over one I/O thread
      │
      ▼
    RabbitMQ                       keeps, waits and counts
      │
      ▼
    broker.consumer                in: one channel per queue, decoded by `broker.frames`
      │
      ▼
    worker.receiver ─ .runners     to a runner thread, or the event loop; what came before is looked at first
      │
      ▼
    worker.runner                  decides: an `Outcome` (done, retry, dead, dropped, requeue, renew);
      │                            `isolation` has what may crash run in a process of its own
      ▼
    worker.settle                  acts: copy confirmed, result stored, reply sent, then acknowledged

A worker process is one of many: `supervisor` starts them, watches them and replaces them.

Imports point one way: words (errors, outcome, message, settings), decisions, broker, results, app, worker, supervisor, cli.
docs/structure.md follows one message through all of it.

What is public is loaded when it is first asked for, so that a part which needs little, such as the supervisor, is small.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from amqpworker.app import App
    from amqpworker.errors import (
        AmqpWorkerError,
        BatchFailed,
        Blocked,
        CallTimeout,
        ConfigError,
        Forbidden,
        InvalidArguments,
        InvalidResult,
        MalformedAnswer,
        NotConnected,
        NotRouted,
        QueueFull,
        QueueUnavailable,
        Reject,
        ResultStoreError,
        ResultTimeout,
        RetryLater,
        SendError,
        TaskFailed,
        TimeLimitExceeded,
        Unconfirmed,
    )
    from amqpworker.message import Message
    from amqpworker.sent import Sent
    from amqpworker.settings import Settings
    from amqpworker.worker.context import current

__all__ = [
    "AmqpWorkerError",
    "App",
    "BatchFailed",
    "Blocked",
    "CallTimeout",
    "ConfigError",
    "Forbidden",
    "InvalidArguments",
    "InvalidResult",
    "MalformedAnswer",
    "Message",
    "NotConnected",
    "NotRouted",
    "QueueFull",
    "QueueUnavailable",
    "Reject",
    "ResultStoreError",
    "ResultTimeout",
    "RetryLater",
    "SendError",
    "Sent",
    "Settings",
    "TaskFailed",
    "TimeLimitExceeded",
    "Unconfirmed",
    "current",
]

__version__ = "0.1.0"

_HOMES = {
    "App": "amqpworker.app",
    "Message": "amqpworker.message",
    "Sent": "amqpworker.sent",
    "Settings": "amqpworker.settings",
    "current": "amqpworker.worker.context",
}

if not TYPE_CHECKING:  # a type checker is to see which names there are

    def __getattr__(name: str) -> Any:
        """Load a public name (PEP 562); those without a home of their own are errors."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}", name=name)
        value = getattr(import_module(_HOMES.get(name, "amqpworker.errors")), name)
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
