"""
Background work on RabbitMQ: tasks, retries, delays and results that are not lost.

The flow of a message, which is also the layout:

    app, task                      what users hold: `@app.task`, `send`, `call`, `options`; `asend`, `acall` for coroutines
      │
      ▼
    signature, policies            arguments to JSON; what was set for the task and for this message
      │
      ▼
    routing                        the message to an exchange, a routing key and headers; the delay ladder
      │
      ▼
    client ─ broker.publisher      out: confirmed and not returned, over one I/O thread, or over the connection of an event
      │                            loop (`broker.loop_publisher`)
      ▼
    RabbitMQ                       stores, delays, counts and delivers
      │
      ▼
    broker.consumer                in: one channel per queue, decoded by `broker.amqp`
      │
      ▼
    worker.receiver                checks redelivered messages first, then hands on to threads or the event loop
      │
      ▼
    worker.pipeline                claims it; `worker.executor` runs the task, `worker.isolation` what may crash its process;
      │                            `worker.outcomes` decides: an `Outcome` (done, retry, dead, …)
      ▼
    worker.settle                  acts: result stored (`results`), copy confirmed, reply sent, then acknowledged

`worker.assembly` builds these parts of a worker process, `worker.main_thread` starts and stops them. A worker process is one of
many: `supervisor` starts them, watches them and replaces them. What the two share is `ipc`. `hooks` reports to listeners how
deliveries ended. `model` holds the values that all parts share, `log` the log lines, `cli` the program, `testing` a private
node, `contrib` parts for frameworks.

Each part imports only from itself and from parts before it in this list: errors, settings, text and model, lifecycle, log,
hooks, ipc, signature, policies, routing and schedules, broker, results, client, app and task, worker, scheduler,
supervisor, testing, cli, contrib.
docs/structure.md follows one message through all.

Public names are loaded at their first use, so that a part that needs little, such as the supervisor, stays small.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from amqpworker.app import App
    from amqpworker.client.result_groups import as_completed, gather
    from amqpworker.client.sent import Sent
    from amqpworker.errors import (
        AccessRefused,
        AmqpWorkerError,
        BatchFailed,
        CallTimeout,
        ConfigError,
        ConnectionBlocked,
        InvalidArguments,
        InvalidResult,
        MalformedReply,
        NoCurrentTask,
        NotConnected,
        QueueBusy,
        QueueFull,
        QueueUnavailable,
        Reject,
        ResultStoreError,
        ResultTimeout,
        RetryLater,
        SendError,
        TaskCancelled,
        TaskFailed,
        TimeLimitExceeded,
        Unconfirmed,
        Unroutable,
    )
    from amqpworker.model.dead_letter import DeadLetter
    from amqpworker.model.message import Message
    from amqpworker.model.message_status import Status
    from amqpworker.model.pending_message import PendingMessage
    from amqpworker.model.progress import Progress
    from amqpworker.model.retried import Retried
    from amqpworker.settings import Settings
    from amqpworker.worker.context import Run, current

__all__ = [
    "AccessRefused",
    "AmqpWorkerError",
    "App",
    "BatchFailed",
    "CallTimeout",
    "ConfigError",
    "ConnectionBlocked",
    "DeadLetter",
    "InvalidArguments",
    "InvalidResult",
    "MalformedReply",
    "Message",
    "NoCurrentTask",
    "NotConnected",
    "PendingMessage",
    "Progress",
    "QueueBusy",
    "QueueFull",
    "QueueUnavailable",
    "Reject",
    "ResultStoreError",
    "ResultTimeout",
    "Retried",
    "RetryLater",
    "Run",
    "SendError",
    "Sent",
    "Settings",
    "Status",
    "TaskCancelled",
    "TaskFailed",
    "TimeLimitExceeded",
    "Unconfirmed",
    "Unroutable",
    "as_completed",
    "current",
    "gather",
]

__version__ = "0.1.0"

_HOMES = {
    "App": "amqpworker.app",
    "DeadLetter": "amqpworker.model.dead_letter",
    "Message": "amqpworker.model.message",
    "PendingMessage": "amqpworker.model.pending_message",
    "Progress": "amqpworker.model.progress",
    "Retried": "amqpworker.model.retried",
    "Sent": "amqpworker.client.sent",
    "Settings": "amqpworker.settings",
    "Status": "amqpworker.model.message_status",
    "Run": "amqpworker.worker.context",
    "as_completed": "amqpworker.client.result_groups",
    "gather": "amqpworker.client.result_groups",
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
