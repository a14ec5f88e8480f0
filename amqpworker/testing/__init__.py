"""
For tests against a real broker: a private RabbitMQ node, a local worker, and the contract of result stores.

```python
with Node(folder, tied=True) as node:
    app = App(node.url())

    @app.task(queue="numbers")
    def double(number: int) -> int:
        return 2 * number

    with running_worker(app, threads=2):
        assert double.call(21) == 42
```

An app that a module makes without a URL uses the node if AMQPWORKER_URL is set before the import.

`testing.one_delivery` runs one message without a broker: internal so far, not a public API.
"""

from __future__ import annotations

from amqpworker.testing.local_worker import LocalWorker, running_worker
from amqpworker.testing.node import Node, NodeStatus
from amqpworker.testing.result_store_contract import ResultStoreContract
from amqpworker.testing.waiting import wait_until

__all__ = ["LocalWorker", "Node", "NodeStatus", "ResultStoreContract", "running_worker", "wait_until"]
