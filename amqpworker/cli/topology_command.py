"""
`amqpworker topology`: show, declare and check what an app needs on its broker.

Decides how it is shown, and whether the HTTP API is asked beside AMQP.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import unquote, urlsplit, urlunsplit

import typer

from amqpworker.cli.cluster import TOTAL_TIMEOUT, ClusterRequests
from amqpworker.cli.findings import STREAM, Finding, Membership, grouped, leaders
from amqpworker.cli.output import console, table, write, write_json
from amqpworker.cli.shared import APP_VARIABLE, AsJson, admin_of, examples, load, quiet
from amqpworker.errors import ConfigError, NotConnected
from amqpworker.log.terminal import printable
from amqpworker.routing.topology import DEFAULT_SCHEDULER, LEVELS, Exchange, Names, Queue, Topology

if TYPE_CHECKING:
    from amqpworker.app import App
    from amqpworker.broker.management import Management

topology_app = typer.Typer(no_args_is_help=True, help="Show, declare or check the queues and exchanges of an app.")

AppArgument = Annotated[str, typer.Argument(metavar="MODULE:APP", envvar=APP_VARIABLE, help="The app.")]
Schedulers = Annotated[
    list[str] | None,
    typer.Option(
        "--scheduler",
        metavar="NAME",
        help="Include what the schedulers of this name need; repeatable.",
        show_default="main, if the app has schedules",
    ),
]

PICTURE = """\
  new work        ──▶ {tasks} ──▶ QUEUE ──▶ worker
  delay and retry ──▶ {top} ──▶ … ──▶ {bottom}
                      ──▶ {due} ──▶ QUEUE ──▶ worker
  dead letter     ──▶ {dead} ──▶ QUEUE.dead
  no such queue   ──▶ {parked} ──▶ {parked}
"""
BOUNDED_PICTURE = """\
  x-max-length    ──▶ {due} ──▶ QUEUE.due ──▶ worker, in place of QUEUE
"""
SCHEDULER_PICTURE = """\
  command, token  ──▶ {schedule} ──▶ {schedule}.NAME
                      ──▶ scheduler ──▶ {tasks} ──▶ QUEUE ──▶ worker
"""


@topology_app.command(
    epilog=examples("amqpworker topology show shop.tasks:app", "amqpworker topology show shop.tasks:app --json")
)
def show(
    app: AppArgument,
    scheduler: Schedulers = None,
    all_levels: Annotated[bool, typer.Option("--all", help="Show each level of the delay ladder.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show what an app needs; does not connect to the broker."""
    quiet()
    found = load(app)
    plan, whole = found.plan, _whole(found, scheduler)
    if as_json:
        durable = {"durable": True}
        exchanges = [{**asdict(exchange), **durable} for exchange in whole.exchanges]
        queues = [{**asdict(queue), **durable} for queue in whole.queues]
        bindings, unbindings = list(map(asdict, whole.bindings)), list(map(asdict, whole.unbindings))
        write_json({"exchanges": exchanges, "queues": queues, "bindings": bindings, "unbindings": unbindings})
        return
    names = plan.names
    picture = PICTURE.format(
        tasks=names.tasks,
        due=names.due,
        dead=names.dead,
        parked=names.parked,
        top=names.level(LEVELS - 1),
        bottom=names.level(0),
    )
    if whole.unbindings:
        picture += BOUNDED_PICTURE.format(due=names.due)
    if any(exchange.name == names.schedule for exchange in whole.exchanges):
        picture += SCHEDULER_PICTURE.format(schedule=names.schedule, tasks=names.tasks)
    write(f"{picture}\n  QUEUE: {', '.join(map(printable, plan.declared_queues())) or '(the app has none)'}\n")
    if not all_levels:
        write(f"  --all shows each of the {LEVELS} levels of the delay ladder.\n")
    for shown in _tables(whole if all_levels else _with_short_ladder(whole, names)):
        console().print(shown)


@topology_app.command(
    epilog=examples(
        "amqpworker topology declare shop.tasks:app",
        "amqpworker topology declare shop.tasks:app --scheduler main",
    )
)
def declare(app: AppArgument, scheduler: Schedulers = None) -> None:
    """
    Declare everything that an app needs. What exists already is not changed.

    Of a bounded queue the binding is removed by which each message that is due would come twice.

    Run it once with an administrator's permissions; workers and producers can then run with AMQPWORKER_DECLARE=0.

    Exit codes: 0 everything exists, 2 something could not be declared.
    """
    quiet()
    found = load(app)
    whole = _whole(found, scheduler)
    with admin_of(found) as admin, _progress(len(list(whole))) as advance:
        admin.declare(whole, lambda _: advance())
    write(f"{_counted(whole)}: declared.")


@topology_app.command(
    epilog=examples(
        "amqpworker topology check shop.tasks:app",
        "amqpworker topology check shop.tasks:app --management http://localhost:15672",
    )
)
def check(
    app: AppArgument,
    scheduler: Schedulers = None,
    management: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            envvar="AMQPWORKER_MANAGEMENT",
            help="The broker's HTTP API, to check members of queues, bindings, policies and stuck dead letters, too. "
            "Without a login in the URL, that of the app's URL is used.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """
    Compare what an app needs with what its broker has. Nothing is changed.

    Exit codes: 0 everything is as it should be, 1 something is not, 2 it could not be compared.
    """
    quiet()
    found = load(app)
    whole = _whole(found, scheduler)
    requests = None if management is None else ClusterRequests.start(_api_of(found, management), found)
    by_amqp = _compare(found, whole, only_source=requests is None)
    cluster = None if requests is None else requests.result()
    known = {(finding.kind, finding.name) for finding in by_amqp}
    by_api = [] if cluster is None else cluster.findings(whole)
    findings = [*by_amqp, *(finding for finding in by_api if (finding.kind, finding.name) not in known)]
    findings.sort(key=lambda finding: ORDER.index(finding.kind))
    members = {} if cluster is None else cluster.members(whole)
    if as_json:
        listed = [{"kind": finding.kind, "name": finding.name, "text": finding.text} for finding in findings]
        queues = {name: asdict(membership) for name, membership in members.items()}
        write_json({"findings": listed, "management": management is not None, "queues": queues})
    else:
        _show_findings(findings, whole, management is not None)
        show_leaders(members)
    if findings:
        raise typer.Exit(2 if all(finding.kind == "unknown" for finding in findings) else 1)


def _whole(app: App, schedulers: list[str] | None) -> Topology:
    """Return everything that an app needs, with the schedulers that are named, or the default one if it has schedules."""
    return app.plan.whole([DEFAULT_SCHEDULER] if schedulers is None and app.schedules else schedulers or ())


# The longest waits if half of a cluster is down or frozen: to connect, and for one response.
CONNECT_TIMEOUT = 2.5
RESPONSE_TIMEOUT = 4.0


def _compare(app: App, whole: Topology, only_source: bool) -> list[Finding]:
    """Return what differs by AMQP, and what could not be compared in time: the HTTP API, another source, may show why."""
    from amqpworker.broker.admin import Admin, Problem

    settings = app.settings
    quick = settings.model_copy(update={"connect_timeout": min(settings.connect_timeout, CONNECT_TIMEOUT)})
    parts: list[Exchange | Queue] = [*whole.exchanges, *whole.queues]
    try:
        with Admin(app.url, quick, RESPONSE_TIMEOUT, TOTAL_TIMEOUT) as admin:
            problems = admin.check_all(parts)
    except NotConnected as error:
        if only_source:
            raise
        problems = [
            (part, Problem("unknown", f"{part.name!r} was not compared: {error}", str(error))) for part in parts
        ]
    return [Finding(found.kind, part.name, found.text, found.why) for part, found in problems]


PERMISSION = """\
To compare, this command declares what exists already, which needs the
`configure` permission: run it as the user that declares, or grant the
permission (rabbitmqctl set_permissions)."""
ORDER = ("minority", "leaderless", "missing", "differs", "unbound", "doubled", "policy", "stuck", "degraded", "unknown")


def _show_findings(findings: list[Finding], whole: Topology, with_management: bool) -> None:
    if findings:
        shown = table("", "")
        shown.show_header = False
        for kind, text in grouped(findings, len(whole.exchanges) + len(whole.queues)):
            shown.add_row(kind, printable(text))
        console().print(shown)
        if any("lacks the permission" in finding.reason for finding in findings):
            write(PERMISSION)
        if any(finding.kind in {"missing", "unbound"} for finding in findings):
            write("`amqpworker topology declare` creates what is missing.")
    unknown = sum(finding.kind == "unknown" for finding in findings)
    found = len(findings) - unknown
    counts = [f"{found} finding{'s' if found > 1 else ''}"] if found else []
    counts += [f"{unknown} not compared"] if unknown else []
    write(f"{_counted(whole)}: {', '.join(counts) or 'all as they should be'}.")
    if not with_management:
        write("Not compared: members, bindings and policies; add --management URL for these.")
    write(
        'Hint: the UI\'s "Get messages" reorders a level of the delay ladder, which makes\nmessages late. Use `amqpworker pending` instead.'
    )


def show_leaders(members: Mapping[str, Membership]) -> None:
    """Print how many queues and streams each node leads, if they have several members."""
    most = max((len(membership.members) for membership in members.values()), default=0)
    if most > 1:
        led = ", ".join(f"{count} on {printable(node)}" for node, count in sorted(leaders(members).items()))
        streams = sum(membership.type == STREAM for membership in members.values())
        write(
            f"Quorum queues: {len(members) - streams}, streams: {streams}, with up to {most} members; leaders: {led or 'none'}."
        )


def _api_of(app: App, url: str) -> Management:
    from amqpworker.broker.address import addresses

    address = addresses(app.url)[0]
    return management_of(url, address.user, address.password)


def management_of(url: str, user: str, password: str) -> Management:
    """Return a client of the HTTP API, a login in the URL having precedence; raises ConfigError if it is not such a URL."""
    from amqpworker.broker.management import Management

    try:
        split = urlsplit(url)
        host = f"[{split.hostname}]" if ":" in (split.hostname or "") else split.hostname
        bare = urlunsplit((split.scheme, f"{host}:{split.port}" if split.port else f"{host}", split.path, "", ""))
    except ValueError as error:
        raise ConfigError(f"The management URL cannot be read: {error}.") from None
    if split.scheme not in {"http", "https"} or not host:
        raise ConfigError("The management URL must be http://HOST:PORT or https://HOST:PORT.")
    if split.username is not None:
        user, password = unquote(split.username), unquote(split.password or "")
    return Management(bare, user, password)


@contextmanager
def _progress(total: int) -> Iterator[Any]:
    """Show a progress bar on a terminal; the caller calls what is yielded after each step."""
    output = console(stderr=True)
    if not output.is_terminal:
        yield lambda: None
        return
    from rich.progress import Progress

    with Progress(console=output, transient=True) as bar:
        task = bar.add_task("declaring", total=total)
        yield lambda: bar.advance(task)


def _counted(whole: Topology) -> str:
    return f"{len(whole.exchanges)} exchanges, {len(whole.queues)} queues, {len(whole.bindings)} bindings"


def _with_short_ladder(whole: Topology, names: Names) -> Topology:
    hidden = {names.level(number) for number in range(1, LEVELS - 1)}
    return Topology(
        tuple(exchange for exchange in whole.exchanges if exchange.name not in hidden),
        tuple(queue for queue in whole.queues if queue.name not in hidden),
        tuple(binding for binding in whole.bindings if binding.queue not in hidden),
        whole.unbindings,
    )


def _tables(whole: Topology) -> Iterator[Any]:
    exchanges = table("exchange", "type", "alternate exchange", title="Exchanges")
    for exchange in whole.exchanges:
        exchanges.add_row(exchange.name, exchange.type, str(exchange.arguments.get("alternate-exchange", "")))
    yield exchanges
    queues = table("queue", "arguments", title="\nQueues")
    for queue in whole.queues:
        queues.add_row(printable(queue.name), _lines(queue.arguments))
    yield queues
    bindings = table("exchange", "routing key", "queue", "arguments", title="\nBindings")
    for binding in whole.bindings:
        bindings.add_row(
            binding.source, printable(binding.routing_key), printable(binding.queue), _lines(binding.arguments)
        )
    yield bindings


def _lines(arguments: Mapping[str, Any]) -> str:
    return "\n".join(f"{name} = {'void' if value is None else value}" for name, value in arguments.items())
