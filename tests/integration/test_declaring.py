"""Declaring what a message needs, on a connection that ends meanwhile."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from amqpworker import App, Settings
from tests.nodes import Node
from tests.support import Broker, wait_until


def test_a_message_whose_queue_was_being_declared_when_the_broker_died_is_sent_once_it_is_back(
    spare_node: Node,
) -> None:
    app = App(spare_node.url(), settings=Settings(send_timeout=60, declare=True))
    first, second = app.queue("first"), app.queue("second")

    @app.task(name="nothing", queue=first)
    def nothing() -> None: ...

    with app, ThreadPoolExecutor() as pool:
        nothing.send()
        os.kill(spare_node.pid, signal.SIGSTOP)
        sending = pool.submit(nothing.options(queue=second).send)
        publisher: Any = app.producer.publisher
        wait_until(lambda: publisher.sends._parked, what="a message that waits for its queue")
        spare_node.kill()
        spare_node.start()
        assert sending.result(timeout=60).id
        assert Broker(spare_node, "/").count(second) == 1
