"""
The options of a pool: one model for the command line, the pool file, the processes of the pool and docs/settings.md.

Decides names, flags, limits, defaults and help, and which threads serve which queue. The command line checks the options
once, and passes them to the supervisor and to each process as JSON.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, Self, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

AUTO: Final = "auto"
MAX_PREFETCH = 65_535
MAX_THREADS = 10_000
MAX_SUSPECTS = 4

# `.*` is greedy, and settings contain no colon: so the colon is the last one.
_WITH_SETTINGS = re.compile(
    r"(?P<name>.*):(?P<threads>[0-9]{0,9})(?:,prefetch=(?P<prefetch>auto|[0-9]{1,9}))?", re.DOTALL
)

Prefetch: TypeAlias = int | Literal["auto"]
"""How many messages of a queue a process holds: a number, or one that follows how long tasks run."""


def repeated(names: Sequence[str]) -> str | None:
    """Return a name that occurs more than once, None if there is none."""
    return min((name for name in names if names.count(name) > 1), default=None)


def _read_prefetch(given: Any) -> Any:
    """Return a prefetch; the command line gives numbers as text. Raises ValueError if it is not one."""
    number = int(given) if isinstance(given, str) and re.fullmatch("[0-9]{1,9}", given) else given
    if number == AUTO or number is None or (type(number) is int and 1 <= number <= MAX_PREFETCH):
        return number
    raise ValueError(f"must be 'auto' or a number from 1 to {MAX_PREFETCH}, got {given!r:.80}")


@dataclass(frozen=True, slots=True)
class Flag:
    """
    How a field is given on the command line.

    `names` replaces the flag that the field's name makes, `unset` describes what applies if the option is None.
    """

    metavar: str | None = None
    unset: str | None = None
    names: tuple[str, ...] = ()


class QueueOptions(BaseModel):
    """
    A queue to consume; a file may have just its name.

    With `threads`, it has that many threads of its own in each process: they serve only this queue, and no others serve it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: str = Field(min_length=1)
    threads: int | None = Field(None, ge=1, le=MAX_THREADS)
    prefetch: Annotated[Prefetch | None, BeforeValidator(_read_prefetch)] = None

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, given: Any) -> Any:
        return {"name": given} if isinstance(given, str) else given

    @classmethod
    def parse(cls, text: str) -> Self:
        """
        Read `NAME` or `NAME:[THREADS][,prefetch=auto|N]`; raises pydantic's ValidationError if a number is out of range.

        The name can contain any character: settings start at the last colon, and only if everything after it is settings.
        """
        found = _WITH_SETTINGS.fullmatch(text)
        if found is None:
            return cls(name=text)
        threads = int(found["threads"]) if found["threads"] else None
        return cls.model_validate({"name": found["name"], "threads": threads, "prefetch": found["prefetch"]})


class LogOptions(BaseModel):
    """How all processes of a program log."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    log_level: Annotated[Literal["debug", "info", "warning", "error", "critical"], Flag("LEVEL")] = Field(
        "info", description="Lowest level that is logged: debug, info, warning, error or critical."
    )
    log_json: Annotated[
        bool | None, Flag(None, "text on a terminal or in a journal, else JSON", ("--log-json/--no-log-json",))
    ] = Field(None, description="Log JSON lines, or text.")

    @field_validator("log_level", mode="before")
    @classmethod
    def _lower(cls, level: Any) -> Any:
        return level.lower() if isinstance(level, str) else level


class PoolOptions(BaseModel):
    """What can be set for a pool, on the command line or in a file; durations are seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    app: str = Field(min_length=1, description="The app to run, as MODULE:APP.")
    processes: Annotated[int | None, Flag("N", "one per usable core", ("-p", "--processes"))] = Field(
        None, ge=1, le=1000, description="Worker processes."
    )
    threads: Annotated[int, Flag("N", names=("-t", "--threads"))] = Field(
        8, ge=1, le=MAX_THREADS, description="Threads per process, shared by queues without their own thread count."
    )
    prefetch: Annotated[Prefetch, BeforeValidator(_read_prefetch), Flag("auto|N")] = Field(
        AUTO,
        description="Messages that a process holds per queue, running or waiting. auto: as many as run, and about a quarter of "
        "a second of work.",
    )
    queues: Annotated[tuple[QueueOptions, ...], Flag("QUEUE", "all queues of the app", ("-q", "--queue"))] = Field(
        (),
        strict=False,
        description="Consume this queue; repeatable. QUEUE:N, or QUEUE:N,prefetch=M, gives it N threads of its own; M may be "
        "auto. If a queue's name itself ends like this, append a colon.",
    )
    async_tasks: Annotated[int, Flag("N")] = Field(
        100, ge=1, le=MAX_PREFETCH, description="Coroutines that run concurrently in each process."
    )
    max_suspects: Annotated[int | None, Flag("N", f"as many as threads, at most {MAX_SUSPECTS}")] = Field(
        None,
        ge=1,
        le=MAX_THREADS,
        description="How many suspects (messages that may have crashed a process) run at once per process, each isolated.",
    )
    drain_timeout: Annotated[float | None, Flag("SECONDS", "the app's setting")] = Field(
        None, ge=0, allow_inf_nan=False, description="Seconds for running tasks to finish when the pool stops."
    )
    max_tasks: Annotated[int | None, Flag("N")] = Field(None, ge=1, description="Restart a process after N tasks.")
    max_hours: Annotated[float | None, Flag("HOURS")] = Field(
        None, ge=0.001, le=87_600, allow_inf_nan=False, description="Restart a process after this many hours."
    )
    max_memory: Annotated[int | None, Flag("MIB")] = Field(
        None, ge=1, description="Restart a process that uses more than this many MiB of memory."
    )
    stall_timeout: Annotated[float, Flag("SECONDS")] = Field(
        60.0,
        ge=1,
        allow_inf_nan=False,
        description="Kill and replace a process that makes no progress for this many seconds.",
    )
    start_timeout: Annotated[float, Flag("SECONDS")] = Field(
        60.0,
        ge=1,
        allow_inf_nan=False,
        description="Kill a process that has not loaded the app and entered its lifespan within this many seconds.",
    )
    log_tasks: Annotated[Literal["all", "failed"] | None, Flag("all|failed", "the app's setting")] = Field(
        None, description="Log a line when a task ends: for all tasks, or for failed ones."
    )

    @field_validator("queues")
    @classmethod
    def _unique(cls, queues: tuple[QueueOptions, ...]) -> tuple[QueueOptions, ...]:
        if (name := repeated([queue.name for queue in queues])) is not None:
            raise ValueError(f"queue {name!r} is named twice")
        return queues

    @model_validator(mode="after")
    def _limit_threads(self) -> Self:
        if (count := self.all_threads) > MAX_THREADS:
            raise ValueError(f"{count} threads per process are too many: at most {MAX_THREADS}")
        return self

    @property
    def own_threads(self) -> dict[str, int]:
        """How many threads of its own a queue has, for each that has some; empty if there is only one queue."""
        if len(self.queues) == 1:
            return {}
        return {queue.name: queue.threads for queue in self.queues if queue.threads is not None}

    @property
    def shared_threads(self) -> int:
        """How many threads serve the queues without threads of their own, 0 if there is no such queue."""
        if len(self.queues) == 1:
            return self.queues[0].threads or self.threads
        return 0 if self.queues and len(self.own_threads) == len(self.queues) else self.threads

    @property
    def all_threads(self) -> int:
        """How many threads there are for all queues together."""
        return self.shared_threads + sum(self.own_threads.values())

    @property
    def slots(self) -> int:
        """How many tasks can run at once."""
        return self.all_threads + self.async_tasks

    @property
    def suspects(self) -> int:
        """How many suspects run at once."""
        return min(self.all_threads, MAX_SUSPECTS) if self.max_suspects is None else self.max_suspects

    def threads_for(self, queue: str) -> int:
        """Return how many threads serve a queue."""
        return self.own_threads.get(queue, self.shared_threads)

    def prefetch_for(self, queue: str) -> Prefetch:
        """Return how many unsettled deliveries of a queue this process can hold."""
        own = next((one.prefetch for one in self.queues if one.name == queue), None)
        return self.prefetch if own is None else own


class WorkerOptions(PoolOptions, LogOptions):
    """The options that a worker process is given."""
