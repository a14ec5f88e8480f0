"""The pages of results in Django's admin: what they show of each store, and to whom."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.test import Client, override_settings

from amqpworker.contrib.django.backend import app_of_backend
from amqpworker.contrib.django.request_record import RequestRecord, put_record
from amqpworker.results.row import ResultRow
from tests.django.conftest import Site
from tests.django.test_backend import finished
from tests.programs import Program
from tests.stores.redis_server import RedisServer

LIST = "/admin/amqpworker/result/"


def visitor(name: str, **fields: bool) -> Client:
    from django.contrib.auth.models import User

    user, _ = User.objects.get_or_create(username=name, defaults=fields)
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def admin(site: Site) -> Client:
    return visitor("root", is_staff=True, is_superuser=True)


@pytest.fixture(scope="module")
def stores(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Backends whose results are in SQLite and in Redis, beside those of the project, and one whose store is away."""
    folder: Path = tmp_path_factory.mktemp("stores")
    with RedisServer(folder) as redis:
        urls = {"sqlite": f"sqlite:///{folder}/results.db", "redis": redis.url, "away": "redis://127.0.0.1:1/"}
        backend = "amqpworker.contrib.django.AmqpWorkerBackend"
        more = {alias: {"BACKEND": backend, "OPTIONS": {"results": url}} for alias, url in urls.items()}
        with override_settings(TASKS={**settings.TASKS, **more}):
            for alias in ("sqlite", "redis"):
                fill(alias)
            yield
            for alias in urls:
                app_of_backend(alias).close()


def fill(alias: str) -> None:
    """Store rows of each state, one with a record, and one in the name of markup."""
    app, now = app_of_backend(alias), time.time()
    store = app.store()
    assert store is not None
    base = ResultRow("1", "running", "shop.report", b"", "2026-03-01T08:00:00.000Z", now, now + 60, 2, "host.7", now)
    failure = b'{"status":"failed","reason":"failed","error_type":"ValueError","error":"no stock","traceback":"line 7"}'
    rows = [
        base._replace(progress=b'{"done":5,"total":20,"note":"half way"}'),
        base._replace(id="2", state="done", reply=b'{"status":"done","value":[42]}', stored_at=now + 1),
        base._replace(id="a/b ?<i>", state="failed", reply=failure, stored_at=now + 2),
        base._replace(id="4", state="sent", task="<b>", stored_at=now + 3),
        base._replace(id="5", state="done", reply=b"?", stored_at=now + 4),
    ]
    assert store.put(rows) == {}
    error = ["builtins.LookupError", "Traceback of attempt 1"]
    record = RequestRecord(task="shop.report", args=["<x>"], kwargs={}, queue="mail", errors=[error], ended_run=now)
    put_record(app, "1", record)


def rows_of(page: Any) -> list[tuple[str, str]]:
    return [(row.id, row.state) for row, _ in page.context_data["rows"]]


def test_the_latest_results_of_a_store_are_listed_by_state(admin: Client, stores: None) -> None:
    page = admin.get(LIST, {"backend": "sqlite"})
    assert rows_of(page) == [("5", "done"), ("4", "sent"), ("a/b ?<i>", "failed"), ("2", "done"), ("1", "running")]
    text = page.content.decode()
    assert "5 of 20 half way" in text
    assert "&lt;b&gt;" in text
    assert "ValueError: no stock" in text
    assert rows_of(admin.get(LIST, {"backend": "sqlite", "state": "done"})) == [("5", "done"), ("2", "done")]
    assert "There are no results." in admin.get(LIST, {"backend": "sqlite", "state": "cancelled"}).content.decode()


@pytest.mark.parametrize("alias", ["sqlite", "redis"])
def test_a_result_is_looked_up_by_its_id_and_shown_with_all_that_is_stored(
    admin: Client, stores: None, alias: str
) -> None:
    shown = {
        task_id: admin.get(LIST, {"backend": alias, "id": task_id}, follow=True).content.decode()
        for task_id in ("1", "2", "a/b ?<i>", "4", "5")
    }
    for part in ("waits for another attempt", "mail", "host.7", "5 of 20", "LookupError", "of attempt 1", "&lt;x&gt;"):
        assert part in shown["1"]
    assert "[42]" in shown["2"]
    assert "2026-03-01 02:00:00" in shown["2"]  # in the time zone of the project
    for part in ("ValueError: no stock", "line 7", "a/b ?&lt;i&gt;"):
        assert part in shown["a/b ?<i>"]
    assert "sent" in shown["4"]
    assert "<h2>Reply</h2>" in shown["5"]


def test_an_id_of_which_nothing_is_stored_is_reported(admin: Client, stores: None) -> None:
    page = admin.get(LIST, {"backend": "sqlite", "id": "never"})
    assert (page.status_code, "Nothing is stored with this id" in page.content.decode()) == (200, True)
    assert admin.get(f"{LIST}never/change/", {"backend": "sqlite"}).status_code == 404
    assert admin.get(LIST, {"backend": "none"}).status_code == 404


def test_a_store_that_lists_nothing_or_is_away_is_reported(admin: Client, stores: None) -> None:
    page = admin.get(LIST, {"backend": "redis"})
    assert (page.status_code, "look one up by its id" in page.content.decode()) == (200, True)
    for url, query in ((LIST, {"id": "1"}), (f"{LIST}1/change/", {})):
        page = admin.get(url, {"backend": "away", **query})
        assert (page.status_code, "cannot be read from redis://127.0.0.1:1" in page.content.decode()) == (503, True)


def test_tasks_of_django_are_listed_and_shown_with_their_errors(admin: Client, site: Site, worker: Program) -> None:
    result = finished(site.tasks.third_time.enqueue())
    page = admin.get(LIST, {"state": "done"})
    assert (result.id, "done") in rows_of(page)
    assert not [one for one, _ in rows_of(page) if one.startswith("aw-")]
    shown = admin.get(f"{LIST}{result.id}/change/").content.decode()
    for part in ("shop.tasks.third_time", "Error 2: builtins.LookupError", "attempt 2", "<h2>Value</h2>", "default"):
        assert part in shown


def test_only_staff_with_the_permission_sees_results_and_nothing_can_be_changed(admin: Client, stores: None) -> None:
    from django.contrib.auth.models import Permission, User

    pages = (LIST, f"{LIST}1/change/")
    for client in (Client(), visitor("customer")):
        assert {client.get(page).status_code for page in pages} == {302}
    staff = visitor("staff", is_staff=True)
    assert {staff.get(page, {"backend": "sqlite"}).status_code for page in pages} == {403}
    (permission,) = Permission.objects.filter(content_type__app_label="amqpworker")
    User.objects.get(username="staff").user_permissions.add(permission)
    assert {staff.get(page, {"backend": "sqlite"}).status_code for page in pages} == {200}
    assert {staff.post(page, {"backend": "sqlite"}).status_code for page in pages} == {405}
    index = staff.get("/admin/").content.decode()
    assert 'href="/admin/amqpworker/result/"' in index
    assert "/add/" not in index
    for action in ("add/", "1/delete/", "1/history/"):
        assert staff.get(f"{LIST}{action}").status_code == 404
