"""
Round trips of a bare pika client, one at a time: `python -m bench.sides.rpc_pika COUNT`; prints seconds, as JSON.

A `BlockingConnection`, the answers by direct reply-to, the requests unconfirmed, as one writes it by hand.
"""

from __future__ import annotations

import json
import os
import sys
import time

import pika

from bench.load import QUEUE
from bench.messages import TASKS_EXCHANGE, properties

REPLY_TO = "amq.rabbitmq.reply-to"


class Client:
    """One connection; one question at a time."""

    def __init__(self, url: str) -> None:
        self._connection = pika.BlockingConnection(pika.URLParameters(url))
        self._channel = self._connection.channel()
        self._channel.basic_consume(REPLY_TO, self._take, auto_ack=True)
        self._answer: int | None = None

    def call(self, index: int) -> int:
        """Ask and wait for the answer."""
        self._answer = None
        self._which = str(index)
        asked = properties("bench.sides.ours.echo", reply_to=REPLY_TO, correlation_id=self._which)
        self._channel.basic_publish(TASKS_EXCHANGE, QUEUE, json.dumps({"index": index}).encode(), asked)
        while self._answer is None:
            self._connection.process_data_events(time_limit=10)
        return self._answer

    def _take(self, _channel: object, _method: object, got: pika.BasicProperties, body: bytes) -> None:
        if got.correlation_id == self._which:
            self._answer = json.loads(body)["value"]


def main() -> None:
    client = Client(os.environ["BENCH_URL"])
    for index in range(100):
        client.call(index)
    times = []
    for index in range(int(sys.argv[1])):
        start = time.perf_counter()
        if client.call(index) != index:
            raise SystemExit("a wrong answer")
        times.append(time.perf_counter() - start)
    print(json.dumps(times))


if __name__ == "__main__":
    main()
