"""
A bare pika server for round trips: a `SelectConnection`, one runner thread, replies to `reply_to`, one ack each.

What one writes by hand: the I/O thread consumes, the runner decodes and answers, the I/O thread publishes and acks.
"""

from __future__ import annotations

import json
import os
import queue
import threading

import pika

from bench.load import QUEUE

Delivery = tuple[int, str, str, bytes]


class Server:
    """One connection with one channel, and one thread that runs."""

    def __init__(self, url: str) -> None:
        self._work: queue.SimpleQueue[Delivery] = queue.SimpleQueue()
        self._connection = pika.SelectConnection(pika.URLParameters(url), on_open_callback=self._opened)

    def serve(self) -> None:
        """Serve until the process is ended."""
        threading.Thread(target=self._run, daemon=True).start()
        self._connection.ioloop.start()

    def _opened(self, connection: pika.SelectConnection) -> None:
        connection.channel(on_open_callback=self._ready)

    def _ready(self, channel: pika.channel.Channel) -> None:
        self._channel = channel
        channel.basic_qos(prefetch_count=256)
        channel.basic_consume(QUEUE, self._take)

    def _take(self, _channel: object, method: object, properties: pika.BasicProperties, body: bytes) -> None:
        self._work.put((method.delivery_tag, properties.reply_to, properties.correlation_id, body))

    def _run(self) -> None:
        while True:
            tag, reply_to, correlation, body = self._work.get()
            answer = json.dumps({"status": "done", "value": json.loads(body)["index"]}).encode()
            self._connection.ioloop.add_callback_threadsafe(
                lambda tag=tag, to=reply_to, which=correlation, answer=answer: self._settle(tag, to, which, answer)
            )

    def _settle(self, tag: int, reply_to: str, correlation: str, answer: bytes) -> None:
        properties = pika.BasicProperties(correlation_id=correlation, content_type="application/json")
        self._channel.basic_publish("", reply_to, answer, properties)
        self._channel.basic_ack(tag)


if __name__ == "__main__":
    Server(os.environ["BENCH_URL"]).serve()
