"""
Builds the parts of a scheduler process from an app and its options.

Decides which schedules it has: those of the app, and those of a file. Nothing of it runs yet.
"""

from __future__ import annotations

import time
from pathlib import Path

from amqpworker.app import App
from amqpworker.broker.address import addresses
from amqpworker.broker.consumer_channel import Subscription
from amqpworker.broker.labels import process_name
from amqpworker.broker.token_queue import TokenQueue
from amqpworker.client.calls import Calls
from amqpworker.errors import ConfigError
from amqpworker.ipc.pipes import Reporter
from amqpworker.ipc.recorder import CONSUMER, Recorder
from amqpworker.log.logger import get_logger
from amqpworker.model.message import new_id
from amqpworker.routing import topology
from amqpworker.routing.queues import Requirement
from amqpworker.scheduler.election import Election
from amqpworker.scheduler.main_loop import EventQueue, SchedulerProcess
from amqpworker.scheduler.others import Identity
from amqpworker.scheduler.performer import Performer
from amqpworker.scheduler.scheduler_options import SchedulerOptions
from amqpworker.scheduler.store_queries import StoreQueries
from amqpworker.schedules.definition import Schedule, fingerprint
from amqpworker.schedules.schedule_file import read_schedules
from amqpworker.schedules.tick import tick_id
from amqpworker.settings import Settings

log = get_logger("amqpworker.scheduler")

# The broker gives up a leader that is frozen, or cut off, after two to three heartbeats.
MAX_HEARTBEAT = 5
# The token may be behind as many commands: a leader that has not received it would take its ticks as never due. The broker
# allows no more than 65,535.
PREFETCH = 65_000


def assemble(app: App, options: SchedulerOptions, recorder: Recorder, reporter: Reporter) -> SchedulerProcess:
    """Build the scheduler process of an app; raises ConfigError if a schedule of the file is wrong, or there is none."""
    schedules = schedules_of(app, options)
    names = app.plan.names
    me = Identity(names.namespace, options.name, process_name(), fingerprint(schedules.values()))
    incoming = EventQueue()
    token_queue = TokenQueue(
        addresses(app.url), _settings(app.settings), Calls(), _subscription(app, options.name), incoming
    )
    token_queue.keeper.owner = options.app
    token_queue.keeper.beat = lambda: recorder.beat(CONSUMER)
    store = app.store()
    queries = None
    if store is not None and any(schedule.overlap == "skip" for schedule in schedules.values()):
        queries = StoreQueries(
            store, lambda name, nominal: tick_id(me.namespace, me.scheduler, name, nominal), incoming.events.put
        )
    result_ttl = int(app.settings.result_ttl * 1000)
    election = Election(me, schedules, result_ttl, (int(time.time() * 1000), time.monotonic()), new_id)
    performer = Performer(me, schedules, token_queue, app.plan, reporter, queries, incoming.events.put)
    return SchedulerProcess(app, token_queue, incoming, election, performer, recorder, reporter)


def schedules_of(app: App, options: SchedulerOptions) -> dict[str, Schedule]:
    """Return the schedules by name; raises ConfigError if there is none, or one of them is wrong."""
    for name, task in app.unfinished_schedules.items():
        raise ConfigError(
            f"Schedule {name} of the task {task!r} is not complete: the task's arguments are missing. Write them in a second "
            f"pair of parentheses, which may be empty: schedule(…)()."
        )
    schedules = dict(app.schedules)
    if options.file is not None:
        for schedule in read_schedules(Path(options.file), app):
            schedules[schedule.name] = schedule
    if not schedules:
        raise ConfigError(f"The app {options.app} has no schedules: add one with task.schedule(…), or give a --file.")
    return schedules


def _settings(settings: Settings) -> Settings:
    heartbeat = min(settings.heartbeat or MAX_HEARTBEAT, MAX_HEARTBEAT)
    return settings.model_copy(update={"heartbeat": heartbeat})


def _subscription(app: App, name: str) -> Subscription:
    namespace = app.plan.names.namespace
    topology.check_scheduler_name(name, namespace)  # with this namespace, the name of its queue may be too long
    required = (Requirement(f"scheduler {name}", lambda: topology.scheduler(namespace, name)),)
    queue = app.plan.names.schedule_queue(name)
    return Subscription(queue, PREFETCH, required if app.plan.declare else ())
