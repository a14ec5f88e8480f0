"""
`amqpworker schema`: describe the tasks of an app for programs in other languages, and for their tools.

Decides which document is printed; `cli.task_messages` decides what is described.
"""

from __future__ import annotations

from typing import Annotated

import typer

from amqpworker.cli.output import write_json
from amqpworker.cli.shared import APP_VARIABLE, examples, load, quiet
from amqpworker.errors import ConfigError

FORMATS = ("json-schema", "asyncapi")

schema_app = typer.Typer()


@schema_app.command(
    short_help="Describe the tasks of an app for other languages.",
    epilog=examples(
        "amqpworker schema shop.tasks:app > tasks.schema.json",
        "amqpworker schema shop.tasks:app --format asyncapi > asyncapi.json",
    ),
)
def schema(
    app: Annotated[str, typer.Argument(metavar="MODULE:APP", envvar=APP_VARIABLE, help="The app that has the tasks.")],
    form: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="json-schema|asyncapi",
            help="One JSON Schema of all messages (draft 2020-12), or an AsyncAPI 3.0 document.",
        ),
    ] = "json-schema",
) -> None:
    """
    Describe the tasks and remotes of an app for other languages: arguments, results, queues, versions and headers.

    It is printed as JSON, and does not connect to the broker.

    Exit codes: 0 printed, 2 the tasks could not be read.
    """
    from amqpworker.cli import asyncapi_document, json_schema_document
    from amqpworker.cli.task_messages import messages_of

    if form not in FORMATS:
        raise ConfigError(f"--format: must be {' or '.join(map(repr, FORMATS))}, got {form!r}.")
    quiet()
    found = load(app)
    names = found.plan.names
    if form == "asyncapi":
        messages = messages_of(found, asyncapi_document.REFERENCE)
        write_json(asyncapi_document.asyncapi_document(app, messages, names.tasks))
    else:
        messages = messages_of(found, json_schema_document.REFERENCE)
        write_json(json_schema_document.json_schema_document(app, messages, names))
