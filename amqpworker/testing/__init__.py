"""
For tests: an app without a broker, a private RabbitMQ node, a local worker, and the contract of result stores.

```python
with running_inline(app) as inline:
    double.options(delay=60).send(21)
    inline.advance(60)
```

```python
with Node(folder, tied=True) as node:
    app = App(node.url())

    @app.task(queue="numbers")
    def double(number: int) -> int:
        return 2 * number

    with running_worker(app, threads=2):
        assert double.call(21) == 42
```

An app that a module makes without a URL uses the node if AMQPWORKER_URL is set before the import. With pytest, the fixtures of
`testing.pytest_plugin` do all of that (docs/testing.md).

`testing.one_delivery` runs one message without a broker: internal so far, not a public API. Names are loaded at their first use:
pytest imports this package at its start.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from amqpworker.testing.inline import Inline, running_inline
    from amqpworker.testing.local_worker import LocalWorker, running_worker
    from amqpworker.testing.node import Node, NodeStatus
    from amqpworker.testing.result_store_contract import ResultStoreContract
    from amqpworker.testing.sent_messages import SentMessage
    from amqpworker.testing.waiting import wait_until
    from amqpworker.testing.workers import Workers

__all__ = [
    "Inline",
    "LocalWorker",
    "Node",
    "NodeStatus",
    "ResultStoreContract",
    "SentMessage",
    "Workers",
    "running_inline",
    "running_worker",
    "wait_until",
]

_HOMES = {
    "Inline": "inline",
    "LocalWorker": "local_worker",
    "Node": "node",
    "NodeStatus": "node",
    "ResultStoreContract": "result_store_contract",
    "SentMessage": "sent_messages",
    "Workers": "workers",
    "running_inline": "inline",
    "running_worker": "local_worker",
    "wait_until": "waiting",
}

if not TYPE_CHECKING:  # a type checker is to see which names there are

    def __getattr__(name: str) -> Any:
        """Load a public name (PEP 562)."""
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}", name=name)
        value = getattr(import_module(f"amqpworker.testing.{_HOMES[name]}"), name)
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
