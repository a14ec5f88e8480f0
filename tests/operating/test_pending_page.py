"""The commands and the code of docs/pending.md, run in the order of the page."""

from __future__ import annotations

import re
from pathlib import Path

from tests.docs import ROOT, Command, blocks, commands
from tests.integration.test_docs import Shell
from tests.support import Broker

PAGE = ROOT / "docs/pending.md"

TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d{3})?Z")


def plain(text: str) -> str:
    """Return an output without what varies: its times, and spaces at the ends of lines."""
    return re.sub(" +$", "", TIME.sub("TIME", text), flags=re.MULTILINE)


def test_the_commands_of_the_page_print_what_it_shows_and_its_code_runs(tmp_path: Path, vhost: Broker) -> None:
    shop, use = blocks(PAGE, "python")
    (tmp_path / "shop.py").write_text(shop)
    (tmp_path / "use.py").write_text(use)
    shell = Shell(tmp_path, vhost.url)
    for command in commands(PAGE):
        done = shell.run(command.line)
        assert done.returncode == 0, done.stderr
        shown = plain(done.stdout + done.stderr)
        assert Command(command.line, plain(command.output)).prints(shown), f"{command.line}\n{shown}"
    done = shell.run("python use.py")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("reminder-7 20")
