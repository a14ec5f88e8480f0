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

from django.core.management.base import BaseCommand, handle_default_options

from amqpworker.cli.main import main
from amqpworker.cli.shared import APP_VARIABLE
from amqpworker.contrib.django.project import TARGET


class Command(BaseCommand):
    """The program `amqpworker` for this project."""

    help = "Run the program amqpworker with the app of this project: worker, send, status, dead, queues, …"
    requires_system_checks: Any = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add which backend's app is meant, and the arguments of the program."""
        parser.add_argument("--backend", default="default", metavar="ALIAS", help="The backend in TASKS.")
        parser.add_argument(
            "arguments", nargs=REMAINDER, help="As of amqpworker: see `manage.py amqpworker -- --help`."
        )

    def run_from_argv(self, argv: list[str]) -> None:
        """Run the program and exit with its code: its options are not read by Django."""
        parser = ArgumentParser(add_help=False, allow_abbrev=False)
        for option in ("--settings", "--pythonpath"):
            parser.add_argument(option)
        parser.add_argument("--backend", default="default")
        given, arguments = parser.parse_known_args(argv[2:])
        handle_default_options(given)
        sys.exit(self.handle(backend=given.backend, arguments=arguments))

    def handle(self, **options: Any) -> int:
        """Run the program, and return its exit code."""
        os.environ[APP_VARIABLE] = f"{TARGET}:{options['backend']}"
        _pass_on_path()
        return main([one for one in options["arguments"] if one != "--"])


def _pass_on_path() -> None:
    """Have other processes find the project as this one does: `manage.py` may have been started in another folder."""
    folder = str(Path(sys.path[0]).absolute())
    known = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if not sys.flags.safe_path and folder not in known:
        os.environ["PYTHONPATH"] = os.pathsep.join([folder, *filter(None, known)])
