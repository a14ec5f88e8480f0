"""
`amqpworker results`: prepare a result store, and show, delete and expire what it holds.

Decides when to ask: a row can be stored again only by running its task again, so more than one is deleted only by agreement.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from amqpworker.cli.output import write, write_json
from amqpworker.cli.questions import agreed
from amqpworker.cli.shared import APP_VARIABLE, AsJson, app_option, examples, load, quiet
from amqpworker.errors import ConfigError, InvalidArguments, ResultStoreError
from amqpworker.log.terminal import printable
from amqpworker.model.headers import EARLIEST, LATEST, time_text

if TYPE_CHECKING:
    from amqpworker.app import App
    from amqpworker.results.row import ResultRow
    from amqpworker.results.store import ResultStore

EXPIRE_AT_ONCE = 1000
"""Rows that are deleted in one transaction: others do not wait long for it."""

results_app = typer.Typer(
    no_args_is_help=True,
    help="Prepare a result store; show, delete and expire results.",
)

AppChoice = Annotated[str | None, app_option("The app whose result store is meant.")]


@results_app.command(
    short_help="Prepare the store, and check that this user can write to it.",
    epilog=examples("amqpworker results init --app shop.tasks:app"),
)
def init(app: AppChoice = None, as_json: AsJson = False) -> None:
    """
    Prepare the store: create its table or file if it is missing, and check that this user can write to it.

    This is needed only with AMQPWORKER_DECLARE=false; else the first program that uses the store prepares it.

    Exit codes: 0 it can be written to, 2 it cannot.
    """
    with _store(app, declare=True) as store:
        reason = store.check_writable()
    if reason is not None:
        raise ResultStoreError(reason)
    if as_json:
        write_json({"ready": True})
    else:
        write("The result store is ready.")


@results_app.command(
    "show-sql",
    short_help="Print the SQL that creates the table in PostgreSQL.",
    epilog=examples("amqpworker results show-sql | psql shop"),
)
def show_sql(app: AppChoice = None) -> None:
    """
    Print the SQL that creates the table of results in PostgreSQL, for users who may not create it.

    Exit codes: 0 printed, 2 the app's store has no such schema.
    """
    from amqpworker.results.postgresql_sql import SHOWN
    from amqpworker.results.store import POSTGRESQL_SCHEMES

    quiet()
    if app is not None and (load(app).results or "").partition("://")[0] not in POSTGRESQL_SCHEMES:
        raise ConfigError(f"The results of {app} are not in PostgreSQL: their store needs no SQL.")
    write(SHOWN.rstrip())


@results_app.command(
    short_help="Show what is stored of a message.",
    epilog=examples("amqpworker results show report-7 --app shop.tasks:app", "amqpworker results show report-7 --json"),
)
def show(
    task_id: Annotated[str, typer.Argument(metavar="ID", help="The message's id.")],
    app: AppChoice = None,
    as_json: AsJson = False,
) -> None:
    """
    Show what is stored of a message: state, times, progress and reply.

    Exit codes: 0 shown, 1 nothing is stored of it, or it has expired; 2 the store could not be read.
    """
    with _store(app) as store:
        row = store.get([task_id]).get(task_id)
    if row is None or row.expires_at <= time.time():
        if as_json:
            write_json([])
        else:
            write(
                f"Nothing is stored with the id {printable(task_id)!r}: its task has not ended, stores no results or is not of this "
                "app, or its result has expired."
            )
        raise typer.Exit(1)
    if as_json:
        write_json([_as_json(row)])
        return
    for name, value in _shown(row).items():
        write(f"{name + ':':<12} {printable(str(value)) if value is not None else '-'}")


@results_app.command(
    short_help="Delete what is stored of messages.",
    epilog=examples(
        "amqpworker results delete report-7 --app shop.tasks:app", "amqpworker results delete report-7 report-8 --yes"
    ),
)
def delete(
    task_ids: Annotated[list[str], typer.Argument(metavar="ID", help="The messages' ids.")],
    app: AppChoice = None,
    yes: Annotated[bool, typer.Option("-y", "--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """
    Delete what is stored of messages, also what an integration keeps of them. It asks if there is more than one id.

    Exit codes: 0 deleted, also if nothing was stored; 1 you did not agree; 2 the store could not be written to.
    """
    from amqpworker.results.row import record_id

    ids = list(dict.fromkeys(task_ids))
    with _store(app) as store:
        if len(ids) > 1 and not agreed(f"Delete the results of {len(ids)} messages?", yes):
            raise typer.Exit(1)
        rows = [*ids, *map(record_id, ids)]
        found = store.get(rows)
        store.delete(rows)
    deleted = {one: one in found or record_id(one) in found for one in ids}
    if as_json:
        write_json([{"id": one, "deleted": was_there} for one, was_there in deleted.items()])
        return
    for one, was_there in deleted.items():
        write(f"{printable(one)}: {'deleted' if was_there else 'nothing was stored'}")


@results_app.command(epilog=examples("amqpworker results expire --app shop.tasks:app"))
def expire(app: AppChoice = None, as_json: AsJson = False) -> None:
    """
    Delete all results that have expired. Workers do this as they store new ones; here it is done at once.

    In SQLite and PostgreSQL, it deletes those of other namespaces in the same file or table too: no app returns what has expired.
    Redis deletes by itself, and 0 are deleted here.

    Exit codes: 0 done, also if there were none; 2 the store could not be written to.
    """
    deleted = 0
    now = time.time()
    with _store(app) as store:
        while count := store.expire(now, EXPIRE_AT_ONCE):
            deleted += count
    if as_json:
        write_json({"deleted": deleted})
    else:
        write(f"{deleted} deleted.")


@contextmanager
def _store(target: str | None, declare: bool | None = None) -> Iterator[ResultStore]:
    """Open the store of the app for the time of a block, and create its schema if the app or `declare` permits it."""
    from amqpworker.results.store import open_store

    quiet()
    if target is None:
        raise InvalidArguments(f"Name the app that has the result store: --app MODULE:APP, or {APP_VARIABLE}.")
    app: App = load(target)
    if app.results is None:
        raise ConfigError(f"{target} has no result store: App(results=…).")
    may_declare = app.settings.declare if declare is None else declare
    store = open_store(app.results, app.plan.names.namespace, may_declare)
    try:
        yield store
    finally:
        store.close()


def _shown(row: ResultRow) -> dict[str, Any]:
    """Return a row as people read it: times as headers have them, `None` for what is not known."""
    return {
        "id": row.id,
        "state": row.state,
        "task": row.task,
        "attempt": row.attempt or None,
        "worker": row.worker or None,
        "sent": row.first_sent or None,
        "started": _time(row.started_at) if row.started_at else None,
        "stored": _time(row.stored_at),
        "expires": _time(row.expires_at),
        "progress": row.progress.decode("utf-8", "backslashreplace") or None,
        "reply": row.reply.decode("utf-8", "backslashreplace") or None,
    }


def _as_json(row: ResultRow) -> dict[str, Any]:
    """Return a row as programs read it: as `_shown`, but `progress` and `reply` are not text unless they are not JSON."""
    return _shown(row) | {name: _parsed(value) for name, value in (("progress", row.progress), ("reply", row.reply))}


def _parsed(stored: bytes) -> Any:
    try:
        return json.loads(stored)
    except ValueError:  # a program that is not ours has stored it
        return stored.decode("utf-8", "backslashreplace") or None


def _time(seconds: float) -> str:
    # a store of another package may have rows that never expire, at infinity
    return time_text(round(min(max(seconds * 1000, EARLIEST), LATEST)))
