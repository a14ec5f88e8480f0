"""The commands and the code of docs/pending.md, run in the order of the page."""

from __future__ import annotations

from pathlib import Path

from tests.docs import ROOT, blocks, commands
from tests.integration.test_docs import Shell
from tests.support import Broker

PAGE = ROOT / "docs/pending.md"


def test_the_commands_of_the_page_print_what_it_shows_and_its_code_runs(tmp_path: Path, vhost: Broker) -> None:
    shop, use = blocks(PAGE, "python")
    (tmp_path / "shop.py").write_text(shop)
    (tmp_path / "use.py").write_text(use)
    shell = Shell(tmp_path, vhost.url)
    for command in commands(PAGE):
        done = shell.run(command.line)
        assert done.returncode == 0, done.stderr
        # what varies, such as the width of tables, is not shown
        shown = done.stdout + done.stderr
        assert command.prints(shown), f"{command.line}\n{shown}"
    done = shell.run("python use.py")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("reminder-7 20")
