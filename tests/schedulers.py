"""
Scheduler processes without a supervisor, and an oracle over the ticks that arrive.

A test kills, freezes and cuts them off, while a bare consumer writes down every tick.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pika
from pika.exceptions import AMQPError

from amqpworker.ipc.interpreter import VERSION_ARGUMENT, command_of
from amqpworker.scheduler.scheduler_options import SchedulerOptions
from amqpworker.schedules.tick import tick_id
from tests.programs import Program
from tests.support import Broker, milliseconds, wait_until

QUEUE = "ticks"
TOKENS = "amqpworker.schedule.main"
NAMESPACE, NAME = "amqpworker", "main"
PATIENCE = 60.0
SECOND = 1000
APP = """
from amqpworker import App, Settings
app = App({app})

@app.task(name="shop.tick", queue="ticks", retry=None)
def tick(number: int) -> None: ...

for number in range({count}):
    tick.schedule(f"s{{number:03}}", every=1, misfire="all")(number)
"""


class Scheduler(Program):
    """A scheduler process, without a supervisor."""

    @property
    def leads(self) -> bool:
        """Whether it leads, by its log."""
        return len(self.events("scheduler_leading")) > len(self.events("scheduler_lost_leadership"))

    def kill(self) -> None:
        """Kill it as the system does if memory runs out."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """End it by SIGTERM; another exit code than 0 fails the test."""
        self.signal(signal.SIGTERM)
        assert self.end(30) == 0, self.log[-4000:]

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Freeze it for the time of a block."""
        self.signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.signal(signal.SIGCONT)


@dataclass
class Schedulers:
    """Starts the schedulers of one app; `close` ends them. `more` is code of the app beside its `count` schedules of a second."""

    folder: Path
    url: str
    count: int = 3
    more: str = ""
    app: str = ""
    heartbeat: int = 2
    module: str = "ticking"
    running: list[Scheduler] = field(default_factory=list)
    _started: int = 0

    def __post_init__(self) -> None:
        code = APP.format(app=self.app, count=self.count) + self.more
        (self.folder / f"{self.module}.py").write_text(code)

    def start(self, url: str = "") -> Scheduler:
        """Start one more."""
        options = SchedulerOptions(app=f"{self.module}:app", log_json=True)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("AMQPWORKER_", "PYTHON"))}
        env = {**kept, "AMQPWORKER_URL": url or self.url, "AMQPWORKER_HEARTBEAT": str(self.heartbeat)}
        self._started += 1
        log = self.folder / f"{self.module}-{self._started}.log"
        command = [*command_of("amqpworker.scheduler"), VERSION_ARGUMENT, options.model_dump_json()]
        with log.open("wb") as output:
            process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *command], cwd=self.folder, env=env, stdout=output, stderr=output
            )
        self.running.append(Scheduler(process, log))
        return self.running[-1]

    def leader(self, other_than: Scheduler | None = None) -> Scheduler:
        """Wait until one leads, and return it."""

        def found() -> Scheduler | None:
            return next((one for one in self.running if one is not other_than and one.leads), None)

        try:
            leader = wait_until(found, PATIENCE, "a scheduler that leads")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.said()}") from None
        assert leader is not None
        return leader

    def kill(self, scheduler: Scheduler) -> None:
        """Kill one."""
        scheduler.kill()
        self.running.remove(scheduler)

    def said(self) -> str:
        """Return the end of the log of each."""
        return "\n".join(f"--- {number}:\n{one.log[-3000:]}" for number, one in enumerate(self.running))

    def close(self) -> None:
        """End all in good order."""
        for one in self.running:
            one.signal(signal.SIGCONT)
            one.signal(signal.SIGTERM)
        codes = [one.end(30) for one in self.running]
        # One that has not begun to log had no handler for the signal yet.
        wrong = [
            one for code, one in zip(codes, self.running, strict=True) if code and (one.log or code != -signal.SIGTERM)
        ]
        assert not wrong, f"{codes}\n{self.said()}"
        assert "Traceback" not in (said := self.said()), said


@contextmanager
def schedulers(folder: Path, url: str, **options: Any) -> Iterator[Schedulers]:
    """Run schedulers for the time of a block; what is left of them is killed."""
    started = Schedulers(folder, url, **options)
    try:
        yield started
        started.close()
    finally:
        for one in started.running:
            with suppress(ProcessLookupError):
                one.process.kill()
            one.process.wait()


@dataclass(frozen=True, slots=True)
class Tick:
    """A tick as it has arrived; `nominal` and `at` are milliseconds."""

    schedule: str
    nominal: int
    id: str
    at: int


class Ticks:
    """Writes down all ticks that arrive in a queue, across restarts of the broker, for the time of a `with` block."""

    def __init__(self, url: str, queue: str = QUEUE) -> None:
        self._url, self._queue = url, queue
        self._arrived: list[Tick] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ticks", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join(30)

    def arrived(self) -> list[Tick]:
        """Return the ticks in the order of their arrival."""
        return list(self._arrived)

    def last(self) -> dict[str, int]:
        """Return the latest nominal time of each schedule."""
        last: dict[str, int] = {}
        for tick in self.arrived():
            last[tick.schedule] = max(tick.nominal, last.get(tick.schedule, 0))
        return last

    def wait_for_time(self, until: int, schedules: int, timeout: float = PATIENCE) -> None:
        """Wait until that many schedules have sent a tick for this time or a later one."""
        wait_until(
            lambda: sum(last >= until for last in self.last().values()) >= schedules,
            timeout,
            f"ticks of {schedules} schedules after {until}",
        )

    def wait_for_more(self, schedules: int, seconds: int = 2, timeout: float = PATIENCE) -> None:
        """Wait until that many schedules have sent ticks of later seconds than this one."""
        self.wait_for_time(now() + seconds * SECOND, schedules, timeout)

    def _run(self) -> None:
        while not self._ended.is_set():
            with suppress(AMQPError, OSError):
                self._consume()
            self._ended.wait(0.5)  # before it connects again

    def _consume(self) -> None:
        connection = pika.BlockingConnection(pika.URLParameters(self._url))
        try:
            channel = connection.channel()
            channel.basic_qos(prefetch_count=1000)
            for method, properties, _ in channel.consume(self._queue, inactivity_timeout=0.2):
                if self._ended.is_set():
                    return
                if method is not None:
                    headers = properties.headers
                    nominal = milliseconds(headers["aw-nominal"])
                    self._arrived.append(Tick(headers["aw-schedule"], nominal, properties.message_id, now()))
                    channel.basic_ack(method.delivery_tag)
        finally:
            with suppress(AMQPError, OSError):
                connection.close()


@dataclass(frozen=True)
class Verdict:
    """What an oracle found in the ticks of schedules of one second, each up to a time that it was given."""

    ticks: int
    missed: list[tuple[str, int]]
    two_ids: list[tuple[str, int]]
    wrong_ids: list[Tick]
    out_of_order: list[Tick]
    doubled: int
    latest: int
    """The milliseconds by which the latest of the ticks was late."""

    def __str__(self) -> str:
        return (
            f"ticks {self.ticks}, missed {len(self.missed)}, under two ids {len(self.two_ids)}, "
            f"out of order {len(self.out_of_order)}, doubled {self.doubled}"
        )

    def check(self) -> None:
        """Fail if a promise was broken; doubled ticks carry the same id, and are allowed."""
        assert not self.missed, f"{self}: {self.missed[:10]}"
        assert not self.two_ids, f"{self}: {self.two_ids[:10]}"
        assert not self.wrong_ids, f"{self}: {self.wrong_ids[:10]}"
        assert not self.out_of_order, f"{self}: {self.out_of_order[:10]}"


def judge(arrived: list[Tick], schedules: int, since: int, until: int) -> Verdict:
    """Judge the ticks of the schedules s000, s001, …, for all times after `since` and up to `until`."""
    first: dict[tuple[str, int], Tick] = {}
    two_ids: list[tuple[str, int]] = []
    out_of_order: list[Tick] = []
    last: dict[str, int] = {}
    for tick in arrived:
        known = first.setdefault((tick.schedule, tick.nominal), tick)
        if known.id != tick.id:
            two_ids.append((tick.schedule, tick.nominal))
        if known is tick:
            if tick.nominal < last.get(tick.schedule, 0):
                out_of_order.append(tick)
            last[tick.schedule] = tick.nominal
    times = range((since // SECOND + 1) * SECOND, until + 1, SECOND)
    expected = [(f"s{number:03}", time) for number in range(schedules) for time in times]
    wrong = [tick for tick in arrived if tick.id != tick_id(NAMESPACE, NAME, tick.schedule, tick.nominal)]
    return Verdict(
        ticks=len(first),
        missed=[one for one in expected if one not in first],
        two_ids=two_ids,
        wrong_ids=wrong,
        out_of_order=out_of_order,
        doubled=len(arrived) - len(first),
        latest=max((tick.at - tick.nominal for tick in first.values()), default=0),
    )


@dataclass
class Watched:
    """Schedulers whose ticks are written down: one that leads, and a standby."""

    schedulers: Schedulers
    arriving: Ticks
    leader: Scheduler
    standby: Scheduler
    since: int

    def check(self) -> Verdict:
        """Wait until all schedules of a second have sent ticks of later seconds than this one, and judge all until now."""
        until = now() + SECOND
        self.wait_for_time(until)
        verdict = judge(self.arriving.arrived(), self.schedulers.count, self.since, until)
        verdict.check()
        return verdict

    def wait_for_time(self, until: int) -> None:
        """Wait until all schedules of a second have sent a tick for this time or a later one."""
        try:
            self.arriving.wait_for_time(until, self.schedulers.count)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.schedulers.said()}") from None


@contextmanager
def watched(folder: Path, url: str, leader_url: str = "", **options: Any) -> Iterator[Watched]:
    """Run two schedulers for the time of a block; the one that leads at first may have a URL of its own."""
    with schedulers(folder, url, **options) as running, Ticks(url) as arriving:
        leader = running.start(leader_url)
        since = starts_from(leader)
        standby = running.start()
        standby.wait_for("scheduler_standby", timeout=PATIENCE)
        found = Watched(running, arriving, leader, standby, since)
        found.wait_for_time(now())
        yield found


def now() -> int:
    """Return the time, in milliseconds since the epoch."""
    return int(time.time() * 1000)


def starts_from(scheduler: Scheduler) -> int:
    """Return the time from which on a leader sends ticks that no other has sent."""
    (leading,) = scheduler.wait_for("scheduler_leading", timeout=PATIENCE)
    missing = scheduler.events("token_missing")
    return milliseconds(missing[0]["since"] if missing else leading["until"])


def publish_token(broker: Broker, body: str, kind: str = "token") -> None:
    """Publish a message into the token queue by hand."""
    properties = pika.BasicProperties(delivery_mode=2, type=kind, message_id="by-hand")
    assert broker.publish("amqpworker.schedule", NAME, body, properties)
