"""
`manage.py amqpworker …`: the program `amqpworker`, with the app of a backend in `TASKS` as its app.

Decides only which app that is: all arguments are those of the program.
"""

from __future__ import annotations

import os
import sys
from argparse import REMAINDER, ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, handle_default_options

from amqpworker.cli.main import main
from amqpworker.cli.shared import APP_VARIABLE
from amqpworker.contrib.django.autoreload import run_reloading
from amqpworker.contrib.django.project import TARGET
from amqpworker.errors import AmqpWorkerError
from amqpworker.log.terminal import print_error
from amqpworker.worker.app_loader import load_app


class Command(BaseCommand):
    """The program `amqpworker` for this project."""

    help = "Run the program amqpworker with the app of this project: worker, send, status, dead, queues, …"
    requires_system_checks: Any = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add which backend's app is meant, and the arguments of the program."""
        parser.add_argument("--backend", default="default", metavar="ALIAS", help="The backend in TASKS.")
        parser.add_argument("--autoreload", action="store_true", help="For development: load code that changes.")
        parser.add_argument("arguments", nargs=REMAINDER, help="As of the program amqpworker: see its --help.")

    def run_from_argv(self, argv: list[str]) -> None:
        """Run the program and exit with its code: its options are not read by Django."""
        parser = ArgumentParser(add_help=False, allow_abbrev=False)
        for option in ("--settings", "--pythonpath"):
            parser.add_argument(option)
        parser.add_argument("--backend", default="default")
        parser.add_argument("--autoreload", action="store_true")
        given, arguments = parser.parse_known_args(argv[2:])
        handle_default_options(given)
        sys.exit(_run(given.backend, given.autoreload, arguments))

    def handle(self, **options: Any) -> None:
        """Run the program for `call_command`; raises CommandError if it ends with another exit code than 0."""
        code = _run(options["backend"], options["autoreload"], options["arguments"])
        if code:
            raise CommandError(f"amqpworker has ended with exit code {code}.", returncode=code)


def _run(backend: str, autoreload: bool, arguments: list[str]) -> int:
    os.environ[APP_VARIABLE] = f"{TARGET}:{backend}"
    _pass_on_path()
    if not autoreload:
        return main(arguments)
    if arguments[:1] != ["worker"]:
        print_error("--autoreload is for workers: manage.py amqpworker --autoreload worker.")
        return 2
    try:
        load_app(os.environ[APP_VARIABLE])  # the files of the modules that it imports are watched
    except AmqpWorkerError as error:
        print_error(str(error))
        return 2
    return run_reloading(["-m", "amqpworker", *arguments])


def _pass_on_path() -> None:
    """Have other processes find the project as this one does: `manage.py` may have been started in another folder."""
    folder = str(Path(sys.path[0]).absolute())
    known = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if not sys.flags.safe_path and folder not in known:
        os.environ["PYTHONPATH"] = os.pathsep.join([folder, *filter(None, known)])
