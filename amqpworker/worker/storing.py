"""
Store a result before what follows it, or a refusal if the store can never hold the result.

Decides what is in a row. `result_storer` decides when it is stored, and when no longer to try.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from amqpworker.errors import ResultStoreError
from amqpworker.hooks import Settled
from amqpworker.model.headers import first_sent_text
from amqpworker.model.outcome import Failure
from amqpworker.model.reply import RESULT_REFUSED, encode_failed
from amqpworker.results.row import ResultRow
from amqpworker.results.store import ResultNotStorable
from amqpworker.worker import task_lines
from amqpworker.worker.context import Run
from amqpworker.worker.result_storer import ResultStorer, StoredRow

Then = Callable[[Settled, bytes], None]
"""What follows: it gets the delivery, which has whether the store has refused the result, and the reply."""

OnFailure = Callable[[Settled, BaseException], None]


class Storing:
    """
    Stores what becomes of deliveries; `storer` is None if nothing is stored.

    `requeue` is called with a delivery whose result could not be stored.
    """

    def __init__(
        self,
        storer: ResultStorer | None,
        worker: str,
        ttl: float,
        now: Callable[[], float],
        requeue: Callable[[Settled], None],
    ) -> None:
        self.storer = storer
        self._worker = worker
        self._ttl = ttl
        self._now = now
        self._requeue = requeue

    @property
    def is_idle(self) -> bool:
        """Whether all is stored, and what follows is done."""
        return self.storer is None or self.storer.is_idle

    def store_then(
        self, settled: Settled, state: str, reply: bytes, then: Then, on_failure: OnFailure, replaces: bool = True
    ) -> None:
        """
        Store a result, then do what follows; at once if none is stored. Requeue the delivery if the store remains unavailable.

        What follows a commit is done in another thread; `on_failure` is called with what it raises there. Unless it `replaces`,
        a result of this message that is stored already stays.
        """
        storer, run = self.storer, settled.run
        if storer is None or settled.id is None or (run is not None and not run.registered.stores_result):
            then(settled, reply)
            return
        delivery = settled.delivery

        def on_stored(error: ResultStoreError | None) -> None:
            try:
                if error is None:
                    then(settled, reply)
                elif isinstance(error, ResultNotStorable):
                    self._store_refusal(settled, state, error, partial(_with_reply, then, reply), on_failure)
                else:
                    self._requeue(settled)
            except BaseException as failure:  # noqa: BLE001 - a message must not stay unsettled
                on_failure(settled, failure)

        row = self._row_of(settled, state, reply)
        storer.put(StoredRow(row, on_stored, lambda: delivery.channel.is_open, replaces))

    def note_running(self, run: Run, progress: bytes = b"") -> None:
        """Store soon that a task runs, and what it has reported; if that fails, it is only logged. Nothing waits for it."""
        if self.storer is None or not run.registered.stores_result:
            return
        now = self._now()
        self.storer.note(
            ResultRow(
                id=run.id,
                state="running",
                task=run.task,
                reply=b"",
                first_sent=first_sent_text(run.delivery.properties.headers),
                stored_at=now,
                expires_at=now + self._ttl_of(run),
                attempt=run.attempt,
                worker=self._worker,
                started_at=run.started,
                progress=progress,
            )
        )

    def _ttl_of(self, run: Run | None) -> float:
        own = None if run is None else run.registered.result_ttl
        return self._ttl if own is None else own

    def _store_refusal(
        self, settled: Settled, state: str, error: ResultNotStorable, then: Then, on_failure: OnFailure
    ) -> None:
        task_lines.refused(settled, str(error))
        refusal = encode_failed(RESULT_REFUSED, Failure("", str(error)))
        if settled.result_refused:
            then(settled, refusal)
        else:
            self.store_then(settled._replace(result_refused=True), state, refusal, then, on_failure)

    def _row_of(self, settled: Settled, state: str, reply: bytes) -> ResultRow:
        run, now = settled.run, self._now()
        return ResultRow(
            id=settled.id or "",
            state=state,
            task=settled.task or "",
            reply=reply,
            first_sent=first_sent_text(settled.delivery.properties.headers),
            stored_at=now,
            expires_at=now + self._ttl_of(run),
            attempt=0 if run is None else run.attempt,
            worker="" if run is None else self._worker,
            started_at=0.0 if run is None else run.started,
            progress=b"" if run is None or run.reported is None else run.reported.progress,
        )


def _with_reply(then: Then, reply: bytes, settled: Settled, _: bytes) -> None:
    """Do what follows with the reply itself: only the store cannot have it."""
    then(settled, reply)
