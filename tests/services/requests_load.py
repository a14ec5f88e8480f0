"""The clients of a web service: threads that send requests one after the other, and keep what was answered."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

import httpx

from tests.services.servers import PATIENCE
from tests.support import wait_until

CONCURRENT = 16
PAUSE = 0.01  # seconds
ARTICLE = "pen"
CENTS = 300


class RequestLoad:
    """
    Send requests for the time of a block: half of them send a task, half of them call one.

    A server that ends a worker process closes its idle connections, and a request may cross with that: as browsers and proxies
    do, a client repeats a request whose connection was closed before any byte of a response, once it has opened another.
    """

    def __init__(self, url: str, count: int) -> None:
        self._url = url
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(count)
        self._count = count
        self._running: list[Future[None]] = []
        self._lock = threading.Lock()
        self.statuses: Counter[int] = Counter()
        self.accepted: set[str] = set()
        """The ids of the tasks that were sent."""
        self.wrong: list[str] = []
        """Responses that are not what the service promises."""
        self.repeated: Counter[str] = Counter()
        """Requests that were sent again, by the kind of error."""

    @property
    def answered(self) -> int:
        """How many requests were answered."""
        return self.statuses.total()

    def wait_for(self, count: int, what: str) -> None:
        """Wait until this many more requests are answered."""
        goal = self.answered + count
        wait_until(lambda: self.answered >= goal or any(one.done() for one in self._running), PATIENCE, what)

    def __enter__(self) -> Self:
        self._running = [self._pool.submit(self._send_requests) for _ in range(self._count)]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._pool.shutdown()
        if error is None:
            for one in self._running:
                one.result()

    def _send_requests(self) -> None:
        with httpx.Client(base_url=self._url, timeout=PATIENCE) as client:
            for number in itertools.count():
                if self._stop.wait(PAUSE):
                    return
                self._keep(self._response(client, sends=number % 2 == 0))

    def _response(self, client: httpx.Client, sends: bool) -> httpx.Response:
        while True:
            try:
                return client.post("/users/42/welcome") if sends else client.get(f"/prices/{ARTICLE}")
            except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError) as error:
                with self._lock:
                    self.repeated[type(error).__name__] += 1

    def _keep(self, response: httpx.Response) -> None:
        with self._lock:
            self.statuses[response.status_code] += 1
            if response.status_code == 202:
                self.accepted.add(response.json()["id"])
            elif response.status_code != 200 or response.json() != {"cents": CENTS}:
                self.wrong.append(f"{response.status_code} {response.text:.200}")
