"""The project of the page about Django, made and run as the page shows."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from amqpworker.contrib.django.tasks_api import PACKAGE
from tests.cli import environment
from tests.conftest import fresh_vhost
from tests.docs import ROOT, blocks, commands
from tests.nodes import Node
from tests.programs import Program
from tests.support import wait_until

PAGE = ROOT / "docs/integrations/django.md"

PROGRAM = """
import json
import django
django.setup()
from shop import orders, pings, reports
from shop.models import Order
from django.db import connection
print(json.dumps([orders.place_order("a@example.org") for _ in range(2)]))
pings.app.queue("crm")
pings.ping_on_commit("a@example.org")
"""
SHOW = """
import json, sys
import django
django.setup()
from shop import reports
from shop.models import Order
shown = [reports.status_of(one) for one in json.loads(sys.argv[1])]
if all(one[0] == "SUCCESSFUL" for one in shown):
    from django.contrib.auth.models import User
    from django.test import Client
    admin = Client()
    admin.force_login(User.objects.create_superuser("admin"))
    page = admin.get("/admin/amqpworker/result/", headers={"host": "localhost"})
    listed = [row.id for row, _ in page.context_data["rows"]]
    assert sorted(listed) == sorted(json.loads(sys.argv[1])), listed
print(json.dumps([shown, list(Order.objects.values_list("pk", "is_confirmed"))]))
"""


def write_project(folder: Path) -> None:
    """Make a project as Django does, and add the blocks of the page, whose first lines name their files."""
    for command in (["startproject", "mysite", "."], ["startapp", "shop"]):
        subprocess.run([sys.executable, "-m", "django", *command], cwd=folder, check=True)
    (folder / "shop/models.py").unlink()
    for block in blocks(PAGE, "python"):
        name, _, code = block.partition("\n")
        with (folder / name.removeprefix("# ")).open("a") as file:
            file.write(code.replace("from django_tasks import", f"from {PACKAGE} import"))


@pytest.mark.timeout(120)
def test_the_project_of_the_page_places_orders_and_confirms_them(own_node: Node, tmp_path: Path) -> None:
    write_project(tmp_path)
    with fresh_vhost(own_node, "page") as broker:
        environ = environment(broker.url, PYTHONPATH=f"{ROOT}:{tmp_path}", DJANGO_SETTINGS_MODULE="mysite.settings")

        def run(*arguments: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [sys.executable, *arguments], cwd=tmp_path, env=environ, check=True, capture_output=True, text=True
            )

        migrate, work = (command.line.split() for command in commands(PAGE))
        run("manage.py", "makemigrations", "shop")
        run(*migrate[1:])
        assert "Ran 1 test in" in run("manage.py", "test").stderr
        ids = json.loads(run("-c", PROGRAM).stdout)
        log = tmp_path / "worker.log"
        with (
            log.open("w") as out,
            subprocess.Popen([sys.executable, *work[1:]], cwd=tmp_path, env=environ, stdout=out, stderr=out) as process,
        ):
            try:
                expected = [[["SUCCESSFUL", [1], 1], ["SUCCESSFUL", [2], 1]], [[1, True], [2, True]]]
                wait_until(
                    lambda: json.loads(run("-c", SHOW, json.dumps(ids)).stdout) == expected, 40, "orders are confirmed"
                )
                process.send_signal(signal.SIGTERM)
                assert Program(process, log).end(40) == 0, log.read_text()
            finally:
                if process.poll() is None:
                    process.kill()
