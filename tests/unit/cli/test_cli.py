"""The command line without a broker: what it accepts, what it refuses, and how it reports that."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from amqpworker.cli.cores import usable_cores
from amqpworker.cli.main import main, program
from amqpworker.cli.output import plain
from amqpworker.cli.shared import exit_code
from amqpworker.cli.topology_command import management_of
from amqpworker.cli.values import as_cli_options, pairs
from amqpworker.errors import (
    AccessRefused,
    AmqpWorkerError,
    CallTimeout,
    ConfigError,
    InvalidArguments,
    NotConnected,
    QueueFull,
    QueueUnavailable,
    TaskFailed,
    Unroutable,
)
from amqpworker.log.terminal import printable
from amqpworker.supervisor.launch import SupervisorConfig
from tests.cli import Ended, environment, run, run_here

COMMANDS = [
    "worker",
    "status",
    "workers",
    "unit",
    "send",
    "call",
    "topology show",
    "topology declare",
    "topology check",
    "dead list",
    "dead show",
    "dead replay",
    "dead edit",
    "dead drop",
    "dead export",
    "dead import",
    "pending list",
    "pending show",
    "pending cancel",
    "pending reschedule",
    "queues pause",
    "queues resume",
    "queues paused",
    "tasks paused",
    "queues purge",
    "tasks",
    "tasks pause",
    "tasks resume",
    "schema",
    "scheduler",
    "results init",
    "results show-sql",
    "results show",
    "results delete",
    "results expire",
    "schedule list",
    "schedule next",
    "schedule run",
    "schedule pause",
    "schedule resume",
    "broker start",
    "broker stop",
    "broker status",
    "broker url",
]

APP = """
from amqpworker import App
app = App("amqp://guest:hidden@127.0.0.1:1/")

@app.task(name="shop.welcome", queue="emails")
def welcome(user_id: int, lang: str = "en") -> str: ...

app.queue("reports")
other = 3
"""


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> object:
    """Run the program in a folder that has a module `clishop` with an app."""
    (tmp_path / "clishop.py").write_text(APP)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "clishop", raising=False)
    return lambda line: run_here(capsys, *(line.split() if isinstance(line, str) else line))


class Cli:
    """What the fixture is, for the type checker."""

    def __call__(self, line: str | list[str]) -> Ended:
        raise NotImplementedError


# ---- help and version -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_each_help_has_an_example_and_fits_80_columns(cli: Cli, command: str) -> None:
    ended = cli(f"{command} --help")
    assert ended.code == 0
    assert f"amqpworker {command}" in ended.out.partition("Example")[2]
    assert max(map(len, ended.out.splitlines())) <= 80
    assert not re.search(r"\[/?(bold|blue|cyan|dim)\]", ended.out)


@pytest.mark.parametrize("group", ["", *sorted({command.split()[0] for command in COMMANDS if " " in command})])
def test_the_list_of_commands_is_not_cut_off(cli: Cli, group: str) -> None:
    ended = cli(f"{group} --help")
    listed = ended.out.partition("Commands:")[2]
    assert listed
    assert "..." not in listed


def test_each_command_is_in_the_list_of_those_whose_help_is_checked() -> None:
    def names(group: Any, prefix: str = "") -> Iterator[str]:
        for name, command in group.commands.items():
            if not hasattr(command, "commands"):
                yield f"{prefix}{name}"
            else:
                yield from [name] if command.invoke_without_command else []
                yield from names(command, f"{name} ")

    assert sorted(names(get_command(program))) == sorted(COMMANDS)


def test_help_is_shown_without_an_argument_too(cli: Cli) -> None:
    ended = cli("")
    assert ended.code == 2
    for group in ("worker", "send", "call", "topology", "dead", "schedule", "broker"):
        assert f" {group} " in ended.err


def test_the_version_is_printed(cli: Cli) -> None:
    assert cli("--version") == Ended(0, "amqpworker 0.1.0\n", "")


def test_the_program_can_be_run_as_a_module_too(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "amqpworker", "--version"], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    assert done.stdout.startswith("amqpworker ")


def test_the_command_line_is_loaded_without_what_a_single_command_needs() -> None:
    code = (
        "import sys, amqpworker.cli.main\n"
        "heavy = {'aio_pika', 'http.client', 'pika', 'pydantic_settings', 'sqlite3', 'ssl', 'structlog'}\n"
        "print(sorted(heavy & {*sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_help_is_plain_text_on_a_terminal_too() -> None:
    ours, theirs = pty.openpty()
    env = {**environment(), "TERM": "xterm"}
    subprocess.run([sys.executable, "-m", "amqpworker", "--help"], stdout=theirs, stderr=theirs, env=env, check=True)
    os.close(theirs)
    text = b""
    try:
        while chunk := os.read(ours, 65536):
            text += chunk
    except OSError:  # how a terminal reports that its other end is closed
        pass
    os.close(ours)
    assert b"worker" in text
    assert b"\x1b" not in text


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "ascii:strict"])
def test_characters_that_the_encoding_of_the_terminal_lacks_are_escaped(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "shop.py").write_text(
        "from amqpworker import App; app = App(default_queue='b\\u0171ro')\napp.queue('b\\u0171ro')\n"
    )
    ended = run(tmp_path, environment(PYTHONIOENCODING=encoding), "topology", "show", "shop:app")
    assert (ended.code, ended.err) == (0, "")
    assert "b\\u0171ro" in ended.out
    ended = run(tmp_path, environment(PYTHONIOENCODING=encoding), "topology", "show", "b\u0171ro:app")
    assert "b\\u0171ro" in ended.complaint()


def test_output_has_no_colours_unless_it_is_a_terminal(cli: Cli) -> None:
    assert "\x1b" not in cli("topology show clishop:app").out + cli("--help").out


# ---- wrong input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("nothing", "No such command 'nothing'"),
        ("worker", "Missing argument 'MODULE:APP'"),
        ("worker sh\udcffop:app", "MODULE:APP: must be a valid string"),
        ("worker a:b -p 0", "'-p'"),
        ("worker a:b -t 0", "'-t'"),
        ("worker a:b -t many", "'-t'"),
        ("worker a:b --prefetch 65536", "--prefetch: must be 'auto' or a number from 1 to 65535, got '65536'."),
        ("worker a:b --drain-timeout -1", "'--drain-timeout'"),
        ("worker a:b --drain-timeout nan", "--drain-timeout"),
        ("worker a:b --drain-timeout inf", "--drain-timeout"),
        ("worker a:b --async-tasks 0", "'--async-tasks'"),
        ("worker a:b --max-suspects 0", "'--max-suspects'"),
        (
            "worker a:b --log-level loud",
            "--log-level: must be 'debug', 'info', 'warning', 'error' or 'critical', got 'loud'.",
        ),
        ("worker a:b --nope", "No such option"),
        ("send", "Missing argument 'TASK'"),
        ("send t x=1", "add --queue, or --app"),
        ("send t x -q q", "'x' must have the form name=value"),
        ("send t =1 -q q", "'=1' must have the form name=value"),
        ("send t x=1 x=2 -q q", "'x' is given twice"),
        ("send t x=1e999 -q q", "a number that JSON does not have"),
        ("send t -q q --delay -1", "--delay '-1': it must be seconds, or a number with s, m, h, d or w"),
        ("send t -q q --delay soon", "--delay 'soon': it must be seconds"),
        ("send t -q q --delay 4000d", "at most 268435456 seconds"),
        ("send t -q q --expires 2y", "--expires '2y': it must be seconds"),
        (
            "send t -q q --at 2020-01-01T00:00Z",
            "--at '2020-01-01T00:00Z' is in the past: check the date. To run it now,",
        ),
        ("send t -q q --at 2099-01-01T00:00Z", "at is too late: at most 8.5 years ahead, 20"),
        ("send t -q q --at tomorrow", "--at 'tomorrow' is not an ISO 8601 time"),
        ("send t -q q --at 2026-12-24T18:00", "has no time zone"),
        ("send t -q q --delay 1 --at 2026-12-24T18:00Z", "--delay, --at"),
        ("send t -q q --time-limit 0", "--time-limit: it must be more than zero seconds"),
        ("send t -q q --hard-limit soon", "--hard-limit 'soon': it must be seconds"),
        ("call t -q q --time-limit 60 --hard-limit 30s", "--time-limit, --hard-limit: the hard limit of 30 s must not"),
        ("send t -q q --header x-death=1", "--header: 'x-death' is reserved"),
        ("send shop.welcome user_id=1 --header x-foo=1 --app clishop:app", "--header: 'x-foo' is reserved"),
        ("send t -q q --header aw-attempt=1", "'aw-attempt' is reserved"),
        ("send t -q q --body {", "--body is not JSON"),
        ("send t -q q --body [1]", "--body must be a JSON object"),
        ("send t x=1 -q q --body {}", "NAME=VALUE or --body"),
        ("send shop.welcome user_id=1 --app clishop:app --url amqp://x", "not both"),
        ("send shop.welcome user_id=1 --app clishop:app --namespace other", "not both"),
        ("send shop.welcome user_id=x --app clishop:app", "parameter 'user_id'"),
        ("send shop.welcome user_id=1 nope=2 --app clishop:app", "'nope'"),
        ("send shop.nope --app clishop:app", "no task 'shop.nope'"),
        ("send t -q q --url http://x", "begins with 'http'"),
        ("call t -q q --timeout 0", "--timeout: it must be more than zero seconds"),
        ("call t -q q --timeout nan", "--timeout 'nan': it must be seconds"),
        ("send t -q q --timeout 0", "--timeout: it must be more than zero seconds"),
        ("send t -q q --timeout 9999d", "timeout is too long"),
        ("dead list", "Name an app (MODULE:APP), or queues with -q"),
        ("dead show 1", "Name an app (MODULE:APP), or queues with -q"),
        ("dead replay", "Choose letters"),
        ("dead drop --all --older-than 30d", "--all does not go together with"),
        ("dead drop -q x --older-than soon", "--older-than 'soon'"),
        ("dead replay -q x --rate 0", "'--rate'"),
        ("dead edit x", "Missing option '--app'"),
        ("dead edit x --set a --app clishop:app", "The argument 'a' must have the form name=value."),
        ("dead list -q x --limit 0", "'--limit'"),
        ("dead list clishop:app --app clishop:other", "Use MODULE:APP or --app, not both."),
        ("dead list --app clishop:nope", "has no 'nope'"),
        ("dead export - -q x --json", "--json needs a FILE"),
        ("pending list --app clishop:app --url amqp://x", "Use an app or --url, not both"),
        ("pending show 1 --app clishop:app --namespace x", "Use an app or --namespace, not both"),
        ("pending list --due-before nan", "--due-before=nan: it must be zero or more seconds"),
        ("pending list --due-before 1e300", "--due-before is too long"),
        ("pending list --due-before soon", "neither a number of seconds, such as 90 or 2h, nor an ISO 8601 time"),
        ("pending reschedule 1", "Use one of --delay, --at and --now"),
        ("pending reschedule 1 --at 2020-01-01T00:00+01:00", "is in the past: check the date. For now there is --now."),
        ("pending reschedule 1 --delay 1y", "--delay '1y': it must be seconds"),
        ("pending cancel 1 --due 2020-01-01T00:00Z", "is in the past: check the date. Without --due,"),
        ("pending cancel 1 --due 0001-01-01T00:00+14:00", "is in the past"),
        ("queues paused", "Missing option '--app'"),
        ("tasks pause shop.nope --app clishop:app", "The app has no task 'shop.nope'"),
        ("queues purge nope --app clishop:app", "The app has no queue 'nope'"),
        ("topology show", "Missing argument 'MODULE:APP'"),
        ("topology show clishop", "write MODULE:APP"),
        ("topology show clishop:nope", "has no 'nope'"),
        ("topology show clishop:other", "is of type int"),
        ("topology show no.such:app", "There is no module 'no.such' in the folder /"),
        ("topology show no.such:app", ", and no installed package has it: check the name, and the folder"),
        (["topology", "show", "clishop:app", "--scheduler", ""], "Scheduler name must be a non-empty string"),
        ("topology declare clishop:app --scheduler amq.x", "Scheduler name must not begin with 'amq.'"),
        ("topology check clishop:app --management localhost:1", "must be http://HOST:PORT or https://HOST:PORT"),
        ("status abc", "'abc' is not a process id, HOST:PORT or the path of a socket."),
        ("status localhost:http", "is not a process id, HOST:PORT or the path of a socket."),
        ("status 1 --json --watch", "Use --json or --watch, not both"),
        ("status /no/such.sock", "No supervisor responds at /no/such.sock: No such file or directory."),
        ("status 127.0.0.1:1", "No supervisor responds at 127.0.0.1:1: Connection refused."),
        ("status :1", "No supervisor responds at :1: Connection refused."),
        ("broker status --folder clishop.py", "a part of the path is a file"),
        ("broker url --folder clishop.py/deeper", "a part of the path is a file"),
        ("broker stop --folder clishop.py", "clishop.py cannot be used for a node"),
    ],
)
def test_wrong_input_is_reported_in_one_line_with_exit_code_2(cli: Cli, line: str | list[str], told: str) -> None:
    ended = cli(line)
    assert told in ended.complaint()
    assert ended.code == 2
    assert ended.out == ""


ELSEWHERE = "amqp://guest:guest@127.0.0.1:2/"


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (f"pending list --url {ELSEWHERE}", "refused by 127.0.0.1:2"),
        (f"pending cancel 1 --url {ELSEWHERE}", "127.0.0.1:2"),
        (f"dead list -q x --url {ELSEWHERE}", "refused by 127.0.0.1:2"),
        (f"dead list --url {ELSEWHERE}", "Name queues with -q: with --url or --namespace the app of AMQPWORKER_APP"),
        (f"send shop.welcome user_id=1 -q x --url {ELSEWHERE} --timeout 0.5", "127.0.0.1:2"),
        (f"send shop.welcome user_id=1 --url {ELSEWHERE}", "queue is not known: add --queue"),
        (f"pending list --app clishop:app --url {ELSEWHERE}", "Use an app or --url, not both"),
        (f"dead list clishop:app --url {ELSEWHERE}", "Use an app or --url, not both"),
    ],
)
def test_a_url_on_the_command_line_counts_more_than_the_app_of_the_environment(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, line: str, told: str
) -> None:
    monkeypatch.setenv("AMQPWORKER_APP", "clishop:app")
    ended = cli(line)
    assert told in ended.complaint()
    assert ended.code in {1, 2}


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("broker url", "amqpworker broker start"),
        ("broker url --folder my-node", "amqpworker broker start --folder my-node"),
        (["broker", "url", "--folder", "my node"], "amqpworker broker start --folder 'my node'"),
    ],
)
def test_the_url_of_a_node_that_is_not_running_is_refused_with_the_command_that_starts_it(
    cli: Cli, line: str | list[str], told: str
) -> None:
    ended = cli(line)
    assert ended.complaint().endswith(f"is not running: start it with `{told}`.")
    assert (ended.code, ended.out) == (1, "")


def test_an_error_inside_the_users_module_keeps_its_traceback(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "clibroken.py").write_text("def helper():\n    raise RuntimeError('inside')\nhelper()\n")
    ended = cli("topology show clibroken:app")
    assert ended.code == 2
    assert "Traceback" in ended.err
    assert "in helper" in ended.err
    assert ended.err.splitlines()[-1].startswith("amqpworker: 'clibroken:app' cannot be imported: RuntimeError")


def test_an_unreachable_broker_is_reported_in_one_line_without_the_password(cli: Cli) -> None:
    for line in ("dead list clishop:app", "topology declare clishop:app", "topology check clishop:app"):
        ended = cli(line)
        assert "Connection refused by 127.0.0.1:1" in ended.complaint()
        assert "hidden" not in ended.err
        assert ended.code == 2


@pytest.mark.parametrize(
    "url",
    [
        "amqp://guest:hid/den@host/",
        "amqp://guest:hid?den@host/",
        "amqp://guest:hidden@host:no/",
        "amqp://guest:[hid@x/",
    ],
)
def test_an_invalid_url_is_reported_without_any_part_of_its_password(cli: Cli, url: str) -> None:
    ended = cli(["send", "t", "-q", "q", "--url", url])
    assert ended.code == 2
    assert "hid" not in ended.complaint()


def test_an_invalid_setting_is_reported_with_its_environment_variable(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AMQPWORKER_SEND_TIMEOUT", "soon")
    ended = cli("send t -q q")
    assert "AMQPWORKER_SEND_TIMEOUT" in ended.complaint()
    assert ended.code == 2


def test_an_internal_error_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("amqpworker.cli.topology_command.load", broken)
    with pytest.raises(ZeroDivisionError):
        main(["topology", "show", "a:b"])


def test_stall_timeout_and_start_timeout_reach_the_supervisor_and_each_process(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    launched: list[SupervisorConfig] = []
    monkeypatch.setattr("amqpworker.cli.worker_command.launch", launched.append)
    assert cli("worker clishop:app --stall-timeout 90 --start-timeout 300").code == 0
    (spec,) = launched[0].pools
    assert (spec.stall_timeout, spec.start_timeout) == (90, 300)
    assert (spec.options["stall_timeout"], spec.options["start_timeout"]) == (90, 300)


# ---- topology show ----------------------------------------------------------------------------------------------------


def test_topology_show_fits_80_columns_and_folds_the_ladder(cli: Cli) -> None:
    ended = cli("topology show clishop:app")
    assert ended.code == 0
    assert max(map(len, ended.out.splitlines())) <= 80
    assert "QUEUE: emails, reports" in ended.out
    assert "amqpworker.delay.30" in ended.out
    assert "amqpworker.delay.15" not in ended.out
    assert "amqpworker.delay.15" in cli("topology show clishop:app --all").out


def test_topology_show_as_json_has_every_part(cli: Cli) -> None:
    told = cli("topology show clishop:app --json").json
    assert {name: len(parts) for name, parts in told.items()} == {
        "exchanges": 36,
        "queues": 38,
        "bindings": 41,
        "unbindings": 0,
    }
    assert {
        "source": "amqpworker.delay.00",
        "queue": "amqpworker.delay.00",
        "routing_key": "",
        "arguments": {"x-match": "all", "aw-wait-00": None},
    } in told["bindings"]


def test_topology_show_has_the_schedulers_that_are_named(cli: Cli) -> None:
    assert "schedule" not in cli("topology show clishop:app").out
    ended = cli("topology show clishop:app --scheduler main --scheduler nightly")
    assert max(map(len, ended.out.splitlines())) <= 80
    for part in ("amqpworker.schedule.main", "amqpworker.schedule.nightly", "x-single-active-consumer = True"):
        assert part in ended.out
    told = cli("topology show clishop:app --scheduler main --json").json
    assert {name: len(parts) for name, parts in told.items()} == {
        "exchanges": 37,
        "queues": 39,
        "bindings": 42,
        "unbindings": 0,
    }


def test_the_app_may_come_from_the_environment(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AMQPWORKER_APP", "clishop:app")
    assert "emails" in cli("topology show").out


# ---- values -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("42", 42),
        ("1.5", 1.5),
        ("true", True),
        ("null", None),
        ('"42"', "42"),
        ("[1, 2]", [1, 2]),
        ('{"a": {"b": null}}', {"a": {"b": None}}),
        ("text", "text"),
        ("", ""),
        ("a=b", "a=b"),
        ("NaN", "NaN"),
        ("Infinity", "Infinity"),
        ("007", "007"),
        ("{half", "{half"),
        ("[" * 100_000, "[" * 100_000),
    ],
)
def test_a_value_is_parsed_as_json_if_possible_and_is_text_otherwise(text: str, value: object) -> None:
    assert pairs([f"x={text}"], "parameter") == {"x": value}


def test_errors_name_options_as_the_command_line_does() -> None:
    assert as_cli_options("options(delay=…, at=…): no") == "--delay, --at: no"
    assert as_cli_options("options(id=…): no") == "--id: no"
    assert as_cli_options("options(headers=…): no") == "--header: no"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (TaskFailed("failed"), 1),
        (CallTimeout(), 1),
        (Unroutable(""), 1),
        (QueueFull(""), 1),
        (QueueUnavailable(""), 1),
        (NotConnected(""), 2),
        (AccessRefused(""), 2),
        (ConfigError(), 2),
        (InvalidArguments(), 2),
    ],
)
def test_exit_code_1_means_that_a_request_failed_and_2_that_it_could_not_be_made(
    error: AmqpWorkerError, code: int
) -> None:
    assert exit_code(error) == code


# ---- the machine ------------------------------------------------------------------------------------------------------


def cores_beside(files: dict[str, str], root: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """Return the usable cores of four, on a machine with these files."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3})
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return usable_cores(root)


@pytest.mark.parametrize(
    ("limit", "cores"),
    [
        ("100000 100000\n", 1),
        ("150000 100000", 2),
        ("1000 100000", 1),
        ("max 100000", 4),
        ("", 4),
        ("900000 100000", 4),
        ("1 0", 4),
    ],
)
def test_the_default_of_processes_heeds_the_quota_of_a_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, cores: int
) -> None:
    assert cores_beside({"sys/fs/cgroup/cpu.max": limit}, tmp_path, monkeypatch) == cores
    assert cores_beside({"proc/self/cgroup": "0::/\n"}, tmp_path, monkeypatch) == cores


@pytest.mark.parametrize(("quota", "cores"), [("150000", 2), ("-1", 4), ("50000", 1), ("", 4)])
@pytest.mark.parametrize("folder", ["cpu", "cpu,cpuacct", "cpu,cpuacct/docker/1f"])
def test_the_default_of_processes_heeds_the_quota_of_a_group_of_version_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str, quota: str, cores: int
) -> None:
    place = f"sys/fs/cgroup/{folder}"
    controllers = folder.partition("/")[0]
    files = {
        f"{place}/cpu.cfs_quota_us": f"{quota}\n",
        f"{place}/cpu.cfs_period_us": "100000\n",
        "proc/self/cgroup": f"7:memory:/\n4:{controllers}:/docker/1f\n0::/docker/1f\n",
    }
    assert cores_beside(files, tmp_path, monkeypatch) == cores


def test_the_default_of_processes_heeds_the_quota_of_a_service_and_of_all_slices_around_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = {"proc/self/cgroup": "0::/shop.slice/shop.service\n"}
    service = {"sys/fs/cgroup/shop.slice/shop.service/cpu.max": "300000 100000"}
    assert cores_beside({**own, **service}, tmp_path, monkeypatch) == 3
    assert cores_beside({"sys/fs/cgroup/shop.slice/cpu.max": "200000 100000"}, tmp_path, monkeypatch) == 2


# ---- the screen -------------------------------------------------------------------------------------------------------


def test_printable_text_contains_nothing_that_controls_a_terminal() -> None:
    hostile = "\x1b[31m red \x07\r\x9b2J \u202e \ud800 \n kept"
    shown = printable(hostile, keep="\n")
    assert shown.replace("\n", "").isprintable()
    assert "\n kept" in shown
    assert printable("plain ü ✓") == "plain ü ✓"


def test_every_value_of_a_header_can_be_written_as_json() -> None:
    assert plain({b"\xff": [b"a\xfe", float("inf"), float("nan"), 1.5, True, None, {"x": (1,)}]}) == {
        "\\xff": ["a\\xfe", "inf", "nan", 1.5, True, None, {"x": [1]}]
    }
    assert plain(datetime(2026, 11, 28, 23, 59, 59, tzinfo=UTC)) == "2026-11-28T23:59:59.000Z", "as the wire has times"


# ---- the management URL -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "bare"),
    [
        ("http://localhost:15672", "http://localhost:15672"),
        ("https://me:pass%40word@broker.example/rabbit/", "https://broker.example/rabbit"),
        ("http://[::1]:15672/", "http://[::1]:15672"),
    ],
)
def test_credentials_are_removed_from_the_management_url(url: str, bare: str) -> None:
    assert management_of(url, "guest", "guest").url == bare


@pytest.mark.parametrize("url", ["ftp://x", "localhost:15672", "http://", "http://x:port/", "http://[::1"])
def test_an_invalid_management_url_is_refused(url: str) -> None:
    with pytest.raises(ConfigError):
        management_of(url, "guest", "guest")
