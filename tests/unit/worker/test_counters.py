"""The counts of a worker process, by the outcomes of its deliveries."""

from __future__ import annotations

from amqpworker.ipc.recorder import Counts
from amqpworker.model.outcome import Discarded, Done, Postpone, Republish, Requeue, Snooze
from amqpworker.worker.counters import OutcomeCounters
from tests.unit.worker.settling import DEAD, FAILURE, RETRY, Bench


def test_each_delivery_is_counted_once_by_its_outcome() -> None:
    bench = Bench(stores=False)
    bench.publisher.confirms_at_once = True
    counters = OutcomeCounters()
    bench.settler.listeners.add(counters.on_settled)
    assert counters.counts() == Counts()
    outcomes = [
        *(Done(), Done(b"1"), Discarded("why")),
        *(RETRY, Snooze(1.0, FAILURE), Postpone(1.0, "too early")),
        DEAD,
        *(Requeue(), Republish()),
    ]
    for outcome in outcomes:
        bench.settler.settle(bench.delivery(), outcome)
    bench.flush()
    assert counters.counts() == Counts(done=3, retried=3, dead=1, requeued=2)
    bench.flush()
    assert counters.counts().settled == 7
