"""The commands and the code of docs/deploys.md, run in the order of the page."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from amqpworker import App
from amqpworker.policies.unknown_wait import next_wait
from tests.docs import ROOT, Command, blocks
from tests.integration.test_docs import Shell

PAGE = ROOT / "docs/deploys.md"
PARTS = re.compile(r"^```(python|console)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def test_the_commands_of_the_page_print_what_it_shows(tmp_path: Path) -> None:
    shell = Shell(tmp_path, "amqp://127.0.0.1:1/")
    codes = []
    for kind, text in PARTS.findall(PAGE.read_text()):
        if kind == "python" and text.startswith("# shop.py\n"):
            (tmp_path / "shop.py").write_text(text)
        for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:] if kind == "console" else ():
            line, _, output = part.partition("\n")
            done = shell.run(line)
            codes.append(done.returncode)
            assert done.stderr == "", line
            shown = [line.rstrip() for line in done.stdout.splitlines()]
            assert Command(line, output).prints("\n".join([*shown, ""]) if shown else ""), done.stdout
    assert codes == [0, 0, 1]


@pytest.fixture
def app() -> App:
    """An app with the tasks of the page's first blocks."""
    app = App("amqp://127.0.0.1:1/")
    names: dict[str, Any] = {"app": app, "Any": Any, "__name__": "page"}
    for block in blocks(PAGE, "python")[:2]:
        exec(block, names)
    return app


def test_the_older_names_and_versions_of_the_page_are_read(app: App) -> None:
    receipt, invoice = app.tasks["page.send_receipt"], app.tasks["page.send_invoice"]
    assert receipt.signature.decode(b'{"uid": 1}').kwargs == {"user_id": 1}
    assert receipt.message(1).body == b'{"user_id":1}'
    assert invoice.message("Ada Lovelace", 500).headers == {"aw-version": 3}
    assert invoice.upgrade is not None
    oldest = {"first": "Ada", "last": "Lovelace", "euros": 5}
    assert invoice.upgrade(1, oldest) == {"name": "Ada Lovelace", "cents": 500}
    assert invoice.upgrade(2, {"name": "Ada Lovelace", "euros": 5}) == {"name": "Ada Lovelace", "cents": 500}


def test_the_figures_of_the_page_are_those_of_the_waits() -> None:
    now, since, rounds = 0.0, None, 0
    while (wait := next_wait(since, now)) is not None:
        since, now, rounds = wait.since, now + wait.delay, rounds + 1
    assert rounds == 14
    assert "more than fourteen" in PAGE.read_text()
