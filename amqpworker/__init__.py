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
    worker.receiver ─ .runners     to a runner thread, or the event loop
      │
      ▼
    worker.runner                  decides: an `Outcome` (done, retry, dead, dropped, requeue)
      │
      ▼
    worker.settle                  acts: copy confirmed, result stored, reply sent, then acknowledged

Imports point one way: words (errors, outcome, message, settings), decisions, broker, results, app, worker, cli.
docs/structure.md follows one message through all of it.
"""

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
