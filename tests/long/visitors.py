"""The visitors of a web service: threads that ask it again and again, and keep what it answered."""

from __future__ import annotations

import http.client
import threading
from collections import Counter
from types import TracebackType
from typing import Self

PATIENCE = 60.0


class Visitors:
    """Ask a service on a loopback port for the time of a block; `answers` counts what came, by status or error."""

    def __init__(self, port: int, count: int, pause: float) -> None:
        self._port = port
        self._pause = pause
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._ask, name=f"visitor-{n}", daemon=True) for n in range(count)]
        self.answers: Counter[str] = Counter()

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leave()

    def leave(self) -> None:
        """Have each visitor leave once it has its answer."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        while not self._stop.wait(self._pause):
            try:
                answer = self._get()
            except OSError as error:
                answer = repr(error)
            with self._lock:
                self.answers[answer] += 1

    def _get(self) -> str:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE)
        try:
            connection.request("GET", "/")
            answered = connection.getresponse()
            answered.read()
            return str(answered.status)
        finally:
            connection.close()
