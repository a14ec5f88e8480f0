"""
`amqpworker topology`: show, declare and check what an app needs on its broker.

Decides how it is shown and which sources are asked. What is needed is decided by `amqpworker.routing.topology` and the app.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import unquote, urlsplit, urlunsplit

import typer

from amqpworker.cli.cluster import ClusterView
from amqpworker.cli.findings import Finding, Membership, gathered, leaders
from amqpworker.cli.output import console, plain, printable, table, write, write_json
from amqpworker.cli.shared import APP_VARIABLE, AsJson, admin_of, load, quiet
from amqpworker.errors import ConfigError, NotConnected
from amqpworker.routing.topology import LEVELS, Binding, Exchange, Names, Queue, Topology

if TYPE_CHECKING:
    from amqpworker.app import App
    from amqpworker.broker.management import Management

__all__ = ["topology_app"]

topology_app = typer.Typer(no_args_is_help=True, help="Exchanges, queues and bindings: show, declare and check them.")

AppArgument = Annotated[str, typer.Argument(metavar="MODULE:APP", envvar=APP_VARIABLE, help="The app that needs them.")]

PICTURE = """\
  new work        ──▶ {tasks} ──▶ QUEUE ──▶ worker
  delay and retry ──▶ {top} ──▶ … ──▶ {bottom}
                      ──▶ {due} ──▶ QUEUE ──▶ worker
  dead letter     ──▶ {dead} ──▶ QUEUE.dead
  no such queue   ──▶ {parked} ──▶ {parked}
"""


@topology_app.command(
    epilog="Examples:\n\n  amqpworker topology show shop.tasks:app\n\n  amqpworker topology show shop.tasks:app --json"
)
def show(
    app: AppArgument,
    every: Annotated[bool, typer.Option("--all", help="Show each level of the delay ladder.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show what an app needs, without asking the broker."""
    quiet()
    plan = load(app).plan
    whole = plan.whole()
    if as_json:
        write_json(
            {
                "exchanges": [described(one) for one in whole.exchanges],
                "queues": [described(one) for one in whole.queues],
                "bindings": [described(one) for one in whole.bindings],
            }
        )
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
    write(f"{picture}\n  QUEUE: {', '.join(printable(name) for name in sorted(plan.queues)) or '(the app has none)'}\n")
    if not every:
        write(f"  --all shows each of the {LEVELS} levels of the delay ladder.\n")
    for shown in tables(whole if every else folded(whole, names)):
        console().print(shown)


@topology_app.command(epilog="Example:\n\n  amqpworker topology declare shop.tasks:app")
def declare(app: AppArgument) -> None:
    """
    Declare everything that an app needs; what exists already stays as it is.

    With an administrator's rights, once: workers and producers can then run with AMQPWORKER_DECLARE=0.

    Exit codes: 0 all is there, 2 it is not, and the text says why.
    """
    quiet()
    found = load(app)
    whole = found.plan.whole()
    parts = list(whole)
    with admin_of(found) as admin, progress(len(parts)) as advance:
        admin.declare(whole, lambda _: advance())
    write(f"{counted(whole)}: all there.")


@topology_app.command(
    epilog="Examples:\n\n  amqpworker topology check shop.tasks:app\n\n"
    "  amqpworker topology check shop.tasks:app --management http://localhost:15672"
)
def check(
    app: AppArgument,
    management: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            envvar="AMQPWORKER_MANAGEMENT",
            help="The broker's HTTP API, for members, bindings, policies, stuck letters; login as for AMQP unless given.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """
    Compare what an app needs with what stands on its broker; nothing is changed.

    Exit codes: 0 all as it should be, 1 something is not, 2 it could not be compared.
    """
    quiet()
    found = load(app)
    whole = found.plan.whole()
    asked = None if management is None else ClusterView.begin(api_of(found, management), found)
    by_amqp = compared(found, whole, alone=asked is None)
    seen = None if asked is None else asked.seen()
    findings = by_amqp if seen is None else [*by_amqp, *seen.findings(whole)]
    findings.sort(key=lambda one: ORDER.index(one.kind))
    held = {} if seen is None else seen.held(whole)
    if as_json:
        told = [{"kind": one.kind, "name": one.name, "text": one.text} for one in findings]
        queues = {name: asdict(one) for name, one in held.items()}
        write_json({"findings": told, "management": management is not None, "queues": queues})
    else:
        show_findings(findings, whole, management is not None)
        show_leaders(held)
    if findings:
        raise typer.Exit(2 if all(one.kind == "unknown" for one in findings) else 1)


# Half of a cluster that is away or frozen keeps nobody waiting for longer than these, one after the other.
CONNECT_TIMEOUT = 2.5
ANSWER_TIMEOUT = 4.0
ANSWERS_WITHIN = 8.0


def compared(app: App, whole: Topology, alone: bool) -> list[Finding]:
    """
    Return what differs, by AMQP. What is not answered in time is not asked again; another source may know why.

    Raises:
        ConfigError: the broker is not one of today.
        AccessRefused: it refuses the login.
        NotConnected: there is no connection, and this source is alone.
    """
    from amqpworker.broker.admin import Admin, Problem

    settings = app.settings
    quick = settings.model_copy(update={"connect_timeout": min(settings.connect_timeout, CONNECT_TIMEOUT)})
    parts: list[Exchange | Queue] = [*whole.exchanges, *whole.queues]
    try:
        with Admin(app.url, quick, ANSWER_TIMEOUT, ANSWERS_WITHIN) as admin:
            problems = admin.check_all(parts)
    except NotConnected as error:
        if alone:
            raise
        problems = [
            (part, Problem("unknown", f"{part.name!r} was not compared: {error}", str(error))) for part in parts
        ]
    return [Finding(found.kind, part.name, found.text, found.why) for part, found in problems]


RIGHTS = """\
Comparing declares what exists already, which takes the right to configure it:
run this as whoever declares, or grant the right (rabbitmqctl set_permissions)."""
ORDER = ("minority", "leaderless", "missing", "differs", "unbound", "policy", "stuck", "degraded", "unknown")


def show_findings(findings: list[Finding], whole: Topology, with_management: bool) -> None:
    """Print what was found, and what was not looked at."""
    if findings:
        shown = table("", "")
        shown.show_header = False
        for kind, text in gathered(findings, len(whole.exchanges) + len(whole.queues)):
            shown.add_row(kind, printable(text))
        console().print(shown)
        if any("lacks the permission" in one.why for one in findings):
            write(RIGHTS)
        if any(one.kind in {"missing", "unbound"} for one in findings):
            write("`amqpworker topology declare` makes what is missing.")
    unknown = sum(one.kind == "unknown" for one in findings)
    found = len(findings) - unknown
    told = [f"{found} finding{'s' if found > 1 else ''}"] if found else []
    told += [f"{unknown} not compared"] if unknown else []
    write(f"{counted(whole)}: {', '.join(told) or 'all as it should be'}.")
    if not with_management:
        write("Members, bindings and policies were not compared: AMQP does not show them, --management URL does.")


def show_leaders(held: Mapping[str, Membership]) -> None:
    """Print who leads the queues, if they are held by several nodes."""
    most = max((len(one.members) for one in held.values()), default=0)
    if most > 1:
        led = ", ".join(f"{count} by {printable(node)}" for node, count in sorted(leaders(held).items()))
        write(f"Quorum queues: {len(held)}, with up to {most} members, led: {led or 'by none'}.")


def api_of(app: App, url: str) -> Management:
    """
    Return a client of the HTTP API with the login of the app, unless the URL has one.

    Raises:
        ConfigError: this is not such a URL.
    """
    from amqpworker.broker.address import addresses

    address = addresses(app.url)[0]
    return management_of(url, address.user, address.password)


def management_of(url: str, user: str, password: str) -> Management:
    """
    Return a client of the HTTP API; a login in the URL comes before the other.

    Raises:
        ConfigError: this is no such URL.
    """
    from amqpworker.broker.management import Management

    try:
        split = urlsplit(url)
        host = f"[{split.hostname}]" if ":" in (split.hostname or "") else split.hostname
        bare = urlunsplit((split.scheme, f"{host}:{split.port}" if split.port else f"{host}", split.path, "", ""))
    except ValueError as error:
        raise ConfigError(f"The management URL cannot be read: {error}.") from None
    if split.scheme not in {"http", "https"} or not host:
        raise ConfigError("The management URL must begin with http:// or https:// and name a host.")
    if split.username is not None:
        user, password = unquote(split.username), unquote(split.password or "")
    return Management(bare, user, password)


@contextmanager
def progress(total: int) -> Iterator[Any]:
    """Show a bar on a terminal; what is yielded is called for each step."""
    screen = console(stderr=True)
    if not screen.is_terminal:
        yield lambda: None
        return
    from rich.progress import Progress

    with Progress(console=screen, transient=True) as bar:
        task = bar.add_task("declaring", total=total)
        yield lambda: bar.advance(task)


def counted(whole: Topology) -> str:
    """Return how many there are of each."""
    return f"{len(whole.exchanges)} exchanges, {len(whole.queues)} queues, {len(whole.bindings)} bindings"


def folded(whole: Topology, names: Names) -> Topology:
    """Return the topology with the top and the bottom level alone for the whole ladder."""
    hidden = {names.level(number) for number in range(1, LEVELS - 1)}
    return Topology(
        tuple(one for one in whole.exchanges if one.name not in hidden),
        tuple(one for one in whole.queues if one.name not in hidden),
        tuple(one for one in whole.bindings if one.queue not in hidden),
    )


def tables(whole: Topology) -> Iterator[Any]:
    """Yield a table of each kind."""
    exchanges = table("exchange", "type", "alternate exchange", title="Exchanges")
    for exchange in whole.exchanges:
        exchanges.add_row(exchange.name, exchange.type, str(exchange.arguments.get("alternate-exchange", "")))
    yield exchanges
    queues = table("queue", "arguments", title="\nQueues")
    for queue in whole.queues:
        queues.add_row(printable(queue.name), lines(queue.arguments))
    yield queues
    bindings = table("exchange", "routing key", "queue", "arguments", title="\nBindings")
    for binding in whole.bindings:
        bindings.add_row(
            binding.source, printable(binding.routing_key), printable(binding.queue), lines(binding.arguments)
        )
    yield bindings


def lines(arguments: Mapping[str, Any]) -> str:
    """Return arguments, one on each line."""
    return "\n".join(f"{name} = {'void' if value is None else value}" for name, value in arguments.items())


def described(part: Exchange | Queue | Binding) -> dict[str, Any]:
    """Return a part for JSON."""
    match part:
        case Exchange(name, type, arguments):
            return {"name": name, "type": type, "durable": True, "arguments": plain(dict(arguments))}
        case Queue(name, arguments):
            return {"name": name, "durable": True, "arguments": plain(dict(arguments))}
        case Binding(source, queue, routing_key, arguments):
            return {
                "source": source,
                "queue": queue,
                "routing_key": routing_key,
                "arguments": plain(dict(arguments)),
            }
