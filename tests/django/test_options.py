"""The OPTIONS of the backend, and `manage.py amqpworker`: mistakes are named, with what to write instead."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from amqpworker.contrib.django import task
from amqpworker.contrib.django.backend import AmqpWorkerBackend, app_of_backend
from amqpworker.contrib.django.tasks_api import InvalidTask, task_backends
from tests.django.conftest import PROJECT, Site


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"broker": "amqp://localhost"}, r"\['OPTIONS'\] has no option 'broker': it may have app, url, results"),
        ({"app": "shop.own_app:app", "url": "amqp://x"}, "has 'app' and 'url': the app has its own"),
        ({"on_commit": "no"}, "'on_commit'] must be of type bool, not str"),
        ({"results": "results.db"}, "is not a URL, such as sqlite"),
        ({"app": "shop.own_app"}, "does not name an app: write MODULE:APP"),
        ({"app": "shop.own_app:plain"}, "does not name an App"),
        ({"database": "defalt"}, r"\['OPTIONS'\]\['database'\]: DATABASES has no 'defalt'"),
    ],
)
def test_a_wrong_option_is_named(site: Site, options: dict[str, Any], text: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=text):
        AmqpWorkerBackend("wrong", {"OPTIONS": options})


@pytest.mark.parametrize(
    ("queues", "text"),
    [
        ("emails", r"must be a list of names, such as \['emails'\], not 'emails'"),
        (["emails", 5], "Queue name must be a non-empty string, got 5"),
        (["emails.dead"], r"must not end in \.dead"),
    ],
)
def test_queues_that_are_none_are_named(site: Site, queues: Any, text: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=rf"TASKS\['wrong'\]\['QUEUES'\].*{text}"):
        AmqpWorkerBackend("wrong", {"QUEUES": queues, "OPTIONS": {"namespace": "wrong"}})


def test_backends_of_the_same_broker_store_and_namespace_have_one_app(site: Site) -> None:
    options = settings.TASKS["default"]["OPTIONS"]
    twin = AmqpWorkerBackend("twin", {"OPTIONS": {**options, "on_commit": False}})
    assert twin.app is app_of_backend("default")
    assert AmqpWorkerBackend("other", {"OPTIONS": {**options, "namespace": "other"}}).app is not twin.app


def test_a_project_without_the_app_is_asked_to_add_it(site: Site) -> None:
    from django.test import modify_settings

    with (
        modify_settings(INSTALLED_APPS={"remove": "amqpworker.contrib.django"}),
        pytest.raises(ImproperlyConfigured, match=r"Add 'amqpworker\.contrib\.django' to INSTALLED_APPS"),
    ):
        AmqpWorkerBackend("default", {})


def test_a_named_app_is_the_one_of_its_module_for_each_thread(site: Site) -> None:
    from shop.own_app import app

    assert app_of_backend("named") is app
    assert AmqpWorkerBackend("named", {"OPTIONS": {"app": "shop.own_app:app"}}).app is app
    assert len(app.middleware) == 1


def test_a_function_can_be_a_task_of_django_or_of_the_app_only(site: Site) -> None:
    app = task_backends["named"].app
    app.task(name="shop.tasks.note_nothing", queue="default")(site.tasks.note_nothing)
    with pytest.raises(InvalidTask, match=r"decorate it by one of @task and @app\.task"):
        task(backend="named")(site.tasks.note_nothing)


def test_the_decorator_of_the_package_makes_the_task_that_django_makes(site: Site) -> None:
    from shop.tasks import task as of_django

    function = site.tasks.note_nothing
    assert task(function) == of_django(function)
    options: dict[str, Any] = {
        "queue_name": "emails",
        "takes_context": False,
        "retry": None,
        "time_limit": 3,
        "hard_limit": 9,
    }
    assert task(**options)(function) == of_django(**options)(function)
    assert task(throws=(LookupError,))(function).throws == (LookupError,)


def manage(site: Site, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(PROJECT / "manage.py"), *arguments]
    return subprocess.run(command, env=site.environ, cwd=site.folder, capture_output=True, text=True, check=False)


def test_manage_py_runs_any_command_with_the_app_of_a_backend(site: Site) -> None:
    sent = manage(site, "amqpworker", "--backend", "named", "send", "shop.own_app.plain", "number=1")
    assert sent.returncode in {0, 1}, sent.stderr  # without a worker, the queue may not be there
    assert "Traceback" not in sent.stderr
    assert "-p" in manage(site, "amqpworker", "worker", "--help").stdout
    shown = manage(site, "amqpworker", "--help").stdout
    assert shown.startswith("Usage: manage.py amqpworker [--backend ALIAS] [--autoreload] COMMAND")
    assert max(map(len, shown.splitlines())) <= 80


def test_call_command_runs_the_program_and_raises_if_it_fails(site: Site) -> None:
    # In a process of its own: the program takes over signals and logging.
    program = """
from django.core.management import call_command
import django
django.setup()
call_command("amqpworker", "queues", "--help")
call_command("amqpworker", "send", "no.such.task")
"""
    command = [sys.executable, "-c", program]
    environ = {**site.environ, "PYTHONPATH": f"{PROJECT}:{site.environ['PYTHONPATH']}"}
    ended = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert "Usage: amqpworker queues" in ended.stdout
    assert ended.stderr.splitlines()[-1].endswith("CommandError: amqpworker has ended with exit code 2.")


def test_manage_py_refuses_an_unknown_backend_in_one_line(site: Site) -> None:
    refused = manage(site, "amqpworker", "--backend", "other", "dead", "list")
    assert refused.returncode == 2
    assert refused.stderr == "amqpworker: TASKS of config.settings has no 'other': it has default, at-once, named.\n"
