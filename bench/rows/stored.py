"""Small results that are stored before their messages are acknowledged: in each store, and beside Celery's backends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from bench import stores
from bench.consuming import CELERY, CELERY_PREFORK, OURS, Shape, Side, consume
from bench.context import Bench
from bench.row import Figures, Limit, Measure, Ratio, Row
from bench.rows import RESULTS
from bench.stores import DATABASES, POSTGRESQL, REDIS, SQLITE, Kind, check_values, opened, wait_until_stored

COUNT = 40_000
CELERY_COUNT = {SQLITE: 300, POSTGRESQL: 300, REDIS: 6_000}
"""Fewer, as each takes Celery much longer; the rate does not depend on how many there are."""
PREFORK_COUNT = 1_000
LEAST = 128
SHAPE = Shape(processes=1, threads=8, prefetch=256)
RATE = "results/s"
NO_STORE = "amqpworker, no store"
AT_LEAST = 10_000
TIMES = {SQLITE: 50, POSTGRESQL: 50, REDIS: 10}


def _stored(side: Side, kind: Kind, full: int) -> Callable[[Bench], Figures]:
    """Return what measures from the end of the first task until the last result is stored."""

    def measure(bench: Bench) -> Figures:
        count = bench.count(full, LEAST)
        with opened(bench.servers, kind) as store:
            until = partial(wait_until_stored, store, count)
            figures = {RATE: consume(bench, replace(side, results=store.url), "stored", count, SHAPE, until)[0]}
            check_values(store, count)
            return figures

    return measure


def _not_stored(bench: Bench) -> Figures:
    return {RATE: consume(bench, OURS, "stored", bench.count(COUNT), SHAPE)[0]}


def _ours(database: str) -> Measure:
    return Measure(f"amqpworker, {database}", OURS.note, _stored(OURS, stores.OURS[database], COUNT))


def _celery(database: str) -> Measure:
    measure = _stored(CELERY, stores.CELERY[database], CELERY_COUNT[database])
    return Measure(f"Celery, {database}", CELERY.note, measure)


PREFORK = Measure(
    f"Celery, {POSTGRESQL}, prefork",
    "a pool of 8 processes, which keep their connections; classic queue, acked early",
    _stored(CELERY_PREFORK, stores.CELERY[POSTGRESQL], PREFORK_COUNT),
)

ROW = Row(
    "stored",
    "Stored results, 1 process × 8 threads, prefetch 256",
    (
        *map(_ours, DATABASES),
        Measure(NO_STORE, "the same tasks, nothing is stored", _not_stored),
        *map(_celery, DATABASES),
        PREFORK,
    ),
    (
        *(Limit(RATE, at_least=AT_LEAST, of=f"amqpworker, {database}") for database in DATABASES),
        *(
            Ratio(f"Celery, {database}", RATE, at_least=times, of=f"amqpworker, {database}")
            for database, times in TIMES.items()
        ),
    ),
    "Celery's redis backend, and its database backend with SQLAlchemy. From the end of the first task until the last result "
    "is stored. Each side has the same servers: PostgreSQL writes each commit through to the disk, Redis writes none.",
    section=RESULTS,
)
