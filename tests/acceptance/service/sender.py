"""
A service that sends, and writes down what it asked for and what the outcome was.

    python -m sender batch --count 1000        through send_each, ends when all are known
    python -m sender load --threads 4 …        one by one from many threads, until SIGTERM

What is not confirmed is sent again with its id by `load`, until it is confirmed or the service ends. Of each outcome that
is waited for, the ledger has the seconds that it took.
"""

from __future__ import annotations

import argparse
import faulthandler
import itertools
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from jobs import answer, app, doomed, flaky, ledger, plain, slow_at_first, waits

from amqpworker import AmqpWorkerError, BatchFailed, ConnectionBlocked, Message, SendError, Unconfirmed
from amqpworker.model.message import new_id

CALL_TIMEOUT = 5.0
PATIENCE = 10.0
PAUSE = 0.2
BATCH = 20
SMALL_DELAYS = (0.3, 1.1, 2.7)

stop = threading.Event()


def mix(delays: bool = False) -> Iterator[tuple[Message, float]]:
    """Yield messages of all kinds without end, and the seconds that each must wait at least."""
    for n in itertools.count():
        delay = SMALL_DELAYS[n % len(SMALL_DELAYS)] if delays and n % 4 == 1 else 0.0
        match n % 8:
            case 0 | 1:
                yield plain.options(delay=delay).message(n), delay
            case 2 | 3:
                yield flaky.options(delay=delay).message(n), delay
            case 4:
                yield doomed.options(delay=delay).message(n), delay
            case 5 | 6:
                yield waits.options(delay=delay).message(n, seconds=0.01), delay
            case _:
                yield plain.options(delay=delay).message(n, seconds=0.005), delay


def only(kind: str, seconds: float) -> Callable[[bool], Iterator[tuple[Message, float]]]:
    """Return a source of messages of one kind, in place of `mix`."""

    def source(_: bool) -> Iterator[tuple[Message, float]]:
        for n in itertools.count():
            match kind:
                case "plain":
                    yield plain.message(n, seconds), 0.0
                case "flaky":
                    yield flaky.message(n, seconds), 0.0
                case "slow_at_first":
                    yield slow_at_first.message(n, seconds), 0.0
                case _:
                    yield doomed.message(n), 0.0

    return source


def tried(message: Message, delay: float = 0.0) -> None:
    """Write down that a message is about to be sent, and how long it must wait at least."""
    ledger.write("try", id=message.id, task=message.task, delay=delay)


def told(message: Message, error: BaseException | None, **fields: Any) -> None:
    """Write down what became of it, as the sender knows."""
    if error is None:
        ledger.write("confirmed", id=message.id, **fields)
    elif isinstance(error, Unconfirmed | ConnectionBlocked):
        ledger.write("unknown", id=message.id, why=repr(error), **fields)
    else:
        ledger.write("refused", id=message.id, why=repr(error), **fields)


def batch(source: Iterator[tuple[Message, float]], count: int) -> None:
    """Send through `send_each`; a line for each message when it is read, and when its fate is known."""
    sent: list[Message] = []

    def read() -> Iterator[Message]:
        for message, delay in itertools.islice(source, count):
            tried(message, delay)
            sent.append(message)
            yield message

    for number, outcome in enumerate(app.send_each(read())):
        told(sent[number], outcome if isinstance(outcome, SendError) else None)


def send_once(message: Message, delay: float = 0.0) -> bool:
    """Send a message; true when it is confirmed."""
    tried(message, delay)
    began = time.monotonic()
    error: SendError | None = None
    try:
        app.send(message)
    except SendError as failure:
        error = failure
    told(message, error, seconds=time.monotonic() - began)
    return error is None


def send_until_confirmed(message: Message, delay: float) -> None:
    """Send a message, and again as long as it is not confirmed: for a while even when we are to stop."""
    patience = int(PATIENCE / PAUSE)
    while patience and not send_once(message, delay):
        patience -= stop.is_set()
        time.sleep(PAUSE)


def send_batch(batch: list[tuple[Message, float]]) -> None:
    """Send through `send_many`, and one by one what of it was not confirmed."""
    for message, delay in batch:
        tried(message, delay)
    began = time.monotonic()
    failed: dict[str, SendError] = {}
    try:
        app.send_many(message for message, _ in batch)
    except BatchFailed as failure:
        errors = [error for error in failure.exceptions if isinstance(error, SendError)]
        failed = {error.message.id: error for error in errors if error.message is not None}
    seconds = time.monotonic() - began
    for message, _ in batch:
        told(message, failed.get(message.id), seconds=seconds)
    for message, delay in batch:
        if message.id in failed:
            send_until_confirmed(message, delay)


def sending(source: Iterator[tuple[Message, float]], pause: float) -> None:
    """Send one by one until we are to stop."""
    for message, delay in source:
        send_until_confirmed(message, delay)
        if stop.wait(pause):
            return


def sending_many(source: Iterator[tuple[Message, float]], pause: float) -> None:
    """Send in batches until we are to stop."""
    while not stop.wait(pause * BATCH):
        send_batch(list(itertools.islice(source, BATCH)))


def calling(pause: float) -> None:
    """Call one by one until we are to stop; an answer is written down, and so is that there was none."""
    for n in itertools.count():
        task_id = new_id()
        ledger.write("call", id=task_id, task=answer.name)
        began = time.monotonic()
        try:
            assert answer.options(id=task_id, timeout=CALL_TIMEOUT).call(n) == n + 1
        except AmqpWorkerError as error:
            ledger.write("unanswered", id=task_id, why=repr(error), seconds=time.monotonic() - began)
            stop.wait(PAUSE)
        else:
            ledger.write("answered", id=task_id, seconds=time.monotonic() - began)
        if stop.wait(pause):
            return


def main() -> None:
    """Send as the command line asks."""
    parser = argparse.ArgumentParser()
    parser.add_argument("how", choices=["batch", "load"])
    parser.add_argument("--count", type=int, default=0)
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--many", type=int, default=0, help="threads that send in batches")
    parser.add_argument("--callers", type=int, default=0)
    parser.add_argument("--pause", type=float, default=0.0)
    parser.add_argument("--delays", action="store_true")
    parser.add_argument("--only", choices=["plain", "flaky", "doomed", "slow_at_first"])
    parser.add_argument("--seconds", type=float, default=0.0)
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    faulthandler.register(signal.SIGUSR1)
    source = only(given.only, given.seconds) if given.only else mix
    if given.how == "batch":
        batch(source(given.delays), given.count)
    else:
        threads = [
            threading.Thread(target=sending, args=(source(given.delays), given.pause)) for _ in range(given.threads)
        ]
        threads += [
            threading.Thread(target=sending_many, args=(source(given.delays), given.pause)) for _ in range(given.many)
        ]
        threads += [threading.Thread(target=calling, args=(given.pause,)) for _ in range(given.callers)]
        broken: list[threading.ExceptHookArgs] = []
        show = threading.excepthook

        def noted(args: threading.ExceptHookArgs) -> None:
            broken.append(args)
            show(args)

        threading.excepthook = noted
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive():
                # Python runs a signal handler when the main thread next moves. If another thread was the one to receive
                # the signal, a wait without a timeout is not interrupted, and the handler never runs.
                thread.join(0.2)
        if broken:
            sys.exit(1)
    ledger.write("sender done")
    app.close()


if __name__ == "__main__":
    main()
