"""
`amqpworker schedule`: list schedules, show their next times, run one now, pause and resume them.

Decides what the leader is asked. The exit code is 1 if no scheduler leads, or if the leader refuses a command.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from amqpworker.cli.output import console, write, write_json
from amqpworker.cli.shared import AsJson, app_option, closing_app, examples, load, quiet
from amqpworker.errors import AmqpWorkerError, CallTimeout, ConfigError, ResultStoreError, TaskFailed, Unroutable
from amqpworker.log.terminal import print_error, printable
from amqpworker.routing.topology import DEFAULT_SCHEDULER, check_scheduler_name
from amqpworker.text import did_you_mean

if TYPE_CHECKING:
    from amqpworker.app import App
    from amqpworker.cli.schedule_listing import LeaderReply, Row
    from amqpworker.model.reply import Reply
    from amqpworker.schedules.definition import Schedule

REPLY_TIMEOUT = 2.0
"""How long the leader has to reply, in seconds."""
MAX_TIMES = 10_000

schedule_app = typer.Typer(
    no_args_is_help=True,
    help="List, run, pause and resume the schedules of an app. A schedule without a time zone of its own is in UTC.",
)

AppWithSchedules = Annotated[str, app_option("The app that has the schedules.")]
SchedulerName = Annotated[str, typer.Option("--name", metavar="NAME", help="Name of the scheduler that runs them.")]
ScheduleFile = Annotated[
    Path | None,
    typer.Option("--file", metavar="FILE", help="The TOML file with more schedules that the scheduler reads, if any."),
]
ScheduleName = Annotated[str, typer.Argument(metavar="SCHEDULE", help="The schedule's name.")]
ScheduleNames = Annotated[list[str], typer.Argument(metavar="SCHEDULE", help="The schedules' names.")]


@schedule_app.command(
    "list",
    epilog=examples("amqpworker schedule list --app shop.tasks:app", "amqpworker schedule list --name reports --json"),
)
def list_schedules(
    app: AppWithSchedules, name: SchedulerName = DEFAULT_SCHEDULER, file: ScheduleFile = None, as_json: AsJson = False
) -> None:
    """
    List schedules, as their leader knows them; times are in UTC.

    The outcome is that of the task that was sent at the last time, if the app has a result store. Without a leader, what the app
    defines is listed.

    Exit codes: 0 listed, 1 no leader replied within 2 s, 2 it could not be asked.
    """
    from amqpworker.cli.schedule_listing import rows_of, show

    found = _load(app, name, file)
    with closing_app(found):
        leader, reason = _ask_leader(found, name)
        rows = list(rows_of(found.schedules, leader, _now()))
        rows = _with_outcomes(found, name, rows)
    if as_json:
        write_json([row.as_json() for row in rows])
    else:
        _show_leader(name, leader, reason)
        show(rows, leader)
    if leader is None:
        if as_json:
            print_error(reason)
        raise typer.Exit(1)


@schedule_app.command(
    "next",
    epilog=examples(
        "amqpworker schedule next --app shop.tasks:app",
        "amqpworker schedule next nightly -n 5 --app shop.tasks:app",
    ),
)
def show_next(
    app: AppWithSchedules,
    schedule: Annotated[
        str | None, typer.Argument(metavar="SCHEDULE", help="The schedule's name.", show_default="all")
    ] = None,
    count: Annotated[
        int | None,
        typer.Option(
            "-n",
            min=1,
            max=MAX_TIMES,
            metavar="N",
            help="How many times of each schedule.",
            show_default="1, and 20 of a schedule that is named",
        ),
    ] = None,
    name: SchedulerName = DEFAULT_SCHEDULER,
    file: ScheduleFile = None,
    as_json: AsJson = False,
) -> None:
    """
    Show the next times of schedules; does not connect to the broker.

    Without a name, it is the next time of each schedule. Each time is shown in UTC and in the time zone of its schedule, which is UTC by default.

    Exit codes: 0 shown, 1 there are no more times, 2 the schedules could not be read.
    """
    from amqpworker.cli.schedule_times import next_times, show_times

    found = _load(app, name, file)
    schedules = list(found.schedules.values()) if schedule is None else [_schedule(found, schedule)]
    times = next_times(schedules, _now(), count or (1 if schedule is None else 20))
    if as_json:
        write_json([one.as_json() for one in times])
    elif times:
        show_times(times)
    else:
        write("No schedule fires any more." if schedules else "The app has no schedules.")
    if not times:
        raise typer.Exit(1)


@schedule_app.command(epilog=examples("amqpworker schedule run nightly --app shop.tasks:app"))
def run(
    schedule: ScheduleName,
    app: AppWithSchedules,
    name: SchedulerName = DEFAULT_SCHEDULER,
    file: ScheduleFile = None,
    as_json: AsJson = False,
) -> None:
    """
    Send the task of a schedule now, and print its id.

    It needs no scheduler. The times of the schedule do not change, and it may be paused.

    Exit codes: 0 confirmed, 1 the broker did not confirm it, 2 it could not be sent.
    """
    from amqpworker.schedules.tick import run_now_message

    found = _load(app, name, file)
    message = run_now_message(_schedule(found, schedule), _now())
    with closing_app(found):
        found.producer.send(message)
    if as_json:
        write_json({"id": message.id, "schedule": schedule, "task": message.task})
    else:
        write(message.id)


@schedule_app.command(epilog=examples("amqpworker schedule pause nightly hourly --app shop.tasks:app"))
def pause(
    schedules: ScheduleNames, app: AppWithSchedules, name: SchedulerName = DEFAULT_SCHEDULER, file: ScheduleFile = None
) -> None:
    """
    Pause schedules until they are resumed, also over restarts.

    What a paused schedule would have sent is not made up.

    Exit codes: 0 they are paused, 1 no leader has done it yet, or it refuses, 2 the command could not be sent.
    """
    _command("pause", schedules, _load(app, name, file), name)


@schedule_app.command(epilog=examples("amqpworker schedule resume nightly --app shop.tasks:app"))
def resume(
    schedules: ScheduleNames, app: AppWithSchedules, name: SchedulerName = DEFAULT_SCHEDULER, file: ScheduleFile = None
) -> None:
    """
    Resume paused schedules: each continues with its next time.

    Exit codes: 0 they are resumed, 1 no leader has done it yet, or it refuses, 2 the command could not be sent.
    """
    _command("resume", schedules, _load(app, name, file), name)


def _load(target: str, scheduler: str, file: Path | None) -> App:
    """Return the app with its schedules; raises ConfigError if it or the file cannot be read."""
    from amqpworker.schedules.schedule_file import read_schedules

    quiet()
    app = load(target)
    check_scheduler_name(scheduler, app.plan.names.namespace)
    if file is not None:
        for schedule in read_schedules(file, app):
            app.add_schedule(schedule)
    return app


def _schedule(app: App, name: str) -> Schedule:
    if (found := app.schedules.get(name)) is not None:
        return found
    some = ", ".join(sorted(app.schedules)[:10]) or "none"
    known = did_you_mean(name, app.schedules) or f": it has {some}"
    raise ConfigError(f"The app has no schedule {name!r}{known}. Schedules in a TOML file need --file.")


def _now() -> int:
    return int(time.time() * 1000)


# ---- the leader -----------------------------------------------------------------------------------------------------


def _ask_leader(app: App, scheduler: str) -> tuple[LeaderReply | None, str]:
    """Return what the leader knows, or None with the reason why no leader replies; raises any other error."""
    from amqpworker.cli.schedule_listing import read_leader
    from amqpworker.client.schedule_commands import send_commands
    from amqpworker.routing.schedule_messages import Command

    (reply,) = send_commands(app.producer, app.plan.names, [Command("list", scheduler)], REPLY_TIMEOUT)
    if isinstance(reply, CallTimeout | Unroutable):
        return None, str(reply)
    return read_leader(_done(reply).value), ""


def _done(reply: Reply | AmqpWorkerError) -> Reply:
    if isinstance(reply, AmqpWorkerError):
        raise reply
    if reply.status == "failed":
        raise TaskFailed(reply.reason, reply.error_type, reply.text, reply.traceback)
    return reply


def _with_outcomes(app: App, scheduler: str, rows: list[Row]) -> list[Row]:
    from amqpworker.cli.schedule_listing import with_outcomes
    from amqpworker.schedules.tick import tick_id

    store, namespace = app.store(), app.plan.names.namespace
    known = {row.schedule.name: last for row in rows if (last := row.schedule.last) is not None}
    if store is None or not known:
        return rows
    try:
        return with_outcomes(rows, store, {one: tick_id(namespace, scheduler, one, known[one]) for one in known})
    except (ResultStoreError, ConfigError) as error:
        print_error(f"Outcomes are not known: {error}")
        return rows


def _show_leader(scheduler: str, leader: LeaderReply | None, reason: str) -> None:
    from amqpworker.cli.schedule_listing import in_utc

    if leader is None:
        text = f"No leader: {reason[:1].lower()}{reason[1:]}\nNext times are those of the app."
    else:
        since = f" since {in_utc(leader.since)}" if leader.since is not None else ""
        text = f"Scheduler {scheduler}: {leader.leader} leads{since}."
        if leader.until is not None:
            text += f"\nTicks are sent up to {in_utc(leader.until)}."
        if leader.differing:
            text += f"\nOther schedules than the leader have: {', '.join(leader.differing)}."
    console().print(f"{printable(text, keep=chr(10))}\n")


def _command(kind: Literal["pause", "resume"], schedules: list[str], app: App, scheduler: str) -> None:
    """Have the leader pause or resume schedules, and print what became of each."""
    from amqpworker.client.schedule_commands import send_commands
    from amqpworker.routing.schedule_messages import Command

    names = list(dict.fromkeys(schedules))
    for name in names:
        _schedule(app, name)
    with closing_app(app):
        commands = [Command(kind, scheduler, name) for name in names]
        replies = send_commands(app.producer, app.plan.names, commands, REPLY_TIMEOUT)
    for name, reply in zip(names, replies, strict=True):
        if isinstance(reply, CallTimeout):
            write(printable(f"{name}: waits for a leader: {reply}"))
        elif not isinstance(reply, AmqpWorkerError):
            refused = f"refused by the leader: {reply.text or reply.reason}"
            write(printable(f"{name}: {f'{kind}d' if reply.status == 'done' else refused}"))
    errors = [reply for reply in replies if isinstance(reply, AmqpWorkerError)]
    for error in errors:
        if not isinstance(error, CallTimeout):
            raise error
    if errors:
        write("What waits stays in the queue, and takes effect once a scheduler leads.")
    if errors or any(not isinstance(reply, AmqpWorkerError) and reply.status == "failed" for reply in replies):
        raise typer.Exit(1)
