"""The systemd unit that is printed."""

from __future__ import annotations

from pathlib import Path

import pytest

from amqpworker.cli.main import main
from amqpworker.cli.unit_command import unit_text, unreadable_part

ROOT = Path(__file__).parents[3]


def test_the_unit_of_the_repository_is_the_one_that_the_program_knows() -> None:
    assert (ROOT / "deploy/systemd/amqpworker@.service").read_text() == unit_text(
        install="/etc/systemd/system/amqpworker@.service: a pool for each /etc/amqpworker/NAME.env",
        name="%i",
        folder="/srv/%i",
        # Without braces, so that systemd splits the value into words.
        command="/opt/amqpworker/bin/amqpworker worker $WORKER_OPTIONS",
        credential_file="/etc/amqpworker/%i.url",
        environment="# AMQPWORKER_APP=shop.tasks:app and WORKER_OPTIONS=-p 4 -t 16\nEnvironmentFile=/etc/amqpworker/%i.env\n",
    )


def test_a_unit_starts_this_program_with_the_options_of_a_worker(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["unit", "shop.tasks:app", "--name", "shop", "--folder", "/srv/shop", "--", "-p", "4", "-q", "a b$%"]) == 0
    )
    lines = capsys.readouterr().out.splitlines()
    command = next(line for line in lines if line.startswith("ExecStart="))
    assert command.endswith('amqpworker worker shop.tasks:app -p 4 -q "a b$$%%"')
    assert "WorkingDirectory=/srv/shop" in lines
    assert "LoadCredential=amqpworker_url:/etc/amqpworker/url" in lines
    assert lines[0] == "# /etc/systemd/system/shop.service"


def test_each_character_of_an_option_and_of_a_folder_is_literal(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["unit", "shop:app", "--folder", "/srv/50%", "--credential-file", "/srv/%i", "--", "-q", 'a"b\\c']) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "WorkingDirectory=/srv/50%%" in lines
    assert "LoadCredential=amqpworker_url:/srv/%%i" in lines
    command = next(line for line in lines if line.startswith("ExecStart="))
    assert command.endswith(r'-q "a\"b\\c"')


@pytest.mark.parametrize(
    "arguments",
    [
        ["--name", "../shop"],
        ["--name", "a b"],
        ["--name", ""],
        ["--name", ".."],
        ["--name", "a\nUser=root"],
        ["--folder", "/srv/a\nUser=root"],
        ["--", "-q", "a\nUser=root"],
        ["--", "-q", "\udcff"],
    ],
)
def test_what_a_unit_cannot_contain_is_refused(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    assert main(["unit", "shop:app", *arguments]) == 2
    shown = capsys.readouterr()
    assert (shown.out, len(shown.err.splitlines())) == ("", 1)


@pytest.mark.parametrize(
    "arguments",
    [
        ["shop"],
        [""],
        ["shop.py:app"],
        ["shop:app", "--", "--bogus"],
        ["shop:app", "--", "-p", "0"],
        ["shop:app", "--", "-q", "emails:0"],
        ["shop:app", "--", "--drain-timeout", "inf"],
        ["shop:app", "--", "--check"],
        ["shop:app", "--", "--config", "pools.toml"],
        ["shop:app", "--", "another:app"],
    ],
)
def test_options_that_a_worker_would_refuse_are_refused(
    capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    assert main(["unit", *arguments]) == 2
    shown = capsys.readouterr()
    assert (shown.out, len(shown.err.splitlines())) == ("", 1)


def test_a_program_without_a_script_beside_its_interpreter_is_started_as_a_module(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    assert main(["unit", "shop:app"]) == 0
    assert f"\nExecStart={tmp_path}/python -P -m amqpworker worker shop:app\n" in capsys.readouterr().out


def test_the_path_of_the_file_with_the_url_is_absolute(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise systemd would take it for one of its own credentials."""
    monkeypatch.chdir(tmp_path)
    assert main(["unit", "shop:app", "--credential-file", "url"]) == 0
    assert f"\nLoadCredential=amqpworker_url:{tmp_path}/url\n" in capsys.readouterr().out


def test_a_folder_or_a_file_that_does_not_exist_is_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["unit", "--folder", "/no/such", "--config", "/no/such.toml"]) == 0
    shown = capsys.readouterr().err
    assert "/no/such does not exist" in shown
    assert "/no/such.toml does not exist" in shown


def test_a_unit_runs_the_pools_of_a_file(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["unit", "--name", "shop", "--folder", "/srv/shop", "--config", "pools.toml"]) == 0
    lines = capsys.readouterr().out.splitlines()
    command = next(line for line in lines if line.startswith("ExecStart="))
    assert command.endswith(f"amqpworker worker --config {tmp_path}/pools.toml")


def test_a_unit_contains_links_as_they_were_given(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "release 1").mkdir()
    current = tmp_path / "current"
    current.symlink_to("release 1")
    monkeypatch.chdir(current)
    monkeypatch.setenv("PWD", str(current))
    expected = {f"WorkingDirectory={current}", f'Environment="PWD={current}"'}
    for arguments in (["--folder", str(current)], []):
        assert main(["unit", "shop:app", *arguments]) == 0
        assert expected <= {*capsys.readouterr().out.splitlines()}
    assert main(["unit", "--config", "pools.toml", "--credential-file", "url"]) == 0
    shown = capsys.readouterr().out
    assert f" --config {current}/pools.toml\n" in shown
    assert f":{current}/url\n" in shown
    assert main(["unit", "shop:app", "--folder", "../current"]) == 0
    assert f"WorkingDirectory={tmp_path}/release 1\n" in capsys.readouterr().out, "systemd takes no '..'"


def test_a_unit_runs_the_schedules_of_an_app(capsys: pytest.CaptureFixture[str]) -> None:
    after = ["--", "--file", "more.toml", "--name", "night"]
    assert main(["unit", "shop.tasks:app", "--scheduler", "--name", "shop-scheduler", *after]) == 0
    shown = capsys.readouterr().out
    assert " scheduler shop.tasks:app --file more.toml --name night\n" in shown
    assert "\nRuntimeDirectory=amqpworker/shop-scheduler\n" in shown
    assert main(["unit", "shop.tasks:app", "--", "-p", "4", "--scheduler", "--scheduler-name", "night"]) == 0
    assert " worker shop.tasks:app -p 4 --scheduler --scheduler-name night\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        ["--scheduler", "--config", "x.toml"],
        ["shop:app", "--scheduler", "--", "-p", "4"],
        ["shop:app", "--scheduler", "--", "--check"],
        ["shop:app", "--scheduler", "--", "--name", "amq.x"],
        ["shop", "--scheduler"],
        ["shop:app", "--", "--scheduler-name", "night"],
        ["shop:app", "--", "--scheduler", "--scheduler-name", ""],
    ],
)
def test_options_that_a_scheduler_would_refuse_are_refused(
    capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    assert main(["unit", *arguments]) == 2
    shown = capsys.readouterr()
    assert (shown.out, len(shown.err.splitlines())) == ("", 1)


@pytest.mark.parametrize("arguments", [[], ["shop:app", "--config", "x.toml"], ["--config", "x.toml", "--", "-p", "4"]])
def test_a_unit_is_for_an_app_or_for_a_file(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    assert main(["unit", *arguments]) == 2
    assert capsys.readouterr().err == (
        "amqpworker: Give either MODULE:APP, with its options after --, or --config FILE.\n"
    )


def test_a_file_with_pools_in_a_home_is_readable(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["unit", "--folder", "/srv/shop", "--config", "/home/me/pools.toml"]) == 0
    assert "ProtectHome=read-only" in capsys.readouterr().out


@pytest.mark.parametrize(("folder", "shown"), [("/home/me/shop", "read-only"), ("/root/shop", "read-only")])
def test_a_folder_in_a_home_is_readable(capsys: pytest.CaptureFixture[str], folder: str, shown: str) -> None:
    assert main(["unit", "shop.tasks:app", "--folder", folder]) == 0
    assert f"ProtectHome={shown}" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["", "a b", "a/b", "shop@", "a%i", "shop.service", "x" * 65])
def test_a_unit_name_that_systemd_does_not_accept_is_refused(capsys: pytest.CaptureFixture[str], name: str) -> None:
    assert main(["unit", "shop.tasks:app", "--name", name]) == 2
    assert capsys.readouterr().err.startswith(f"amqpworker: --name {name!r}: must be at most 64 letters a to z, digits")


def test_a_path_that_the_service_cannot_read_is_a_warning(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    shop, pools = tmp_path / "srv" / "shop", tmp_path / "pools.toml"
    shop.mkdir(parents=True)
    pools.touch()
    pools.chmod(0o600)
    shop.parent.chmod(0o700)
    assert unreadable_part(shop) in {shop.parent, *tmp_path.parents, tmp_path}
    assert unreadable_part(Path("/")) is None
    assert unreadable_part(tmp_path / "elsewhere" / "shop") in {None, tmp_path, *tmp_path.parents}
    assert main(["unit", "--name", "shop", "--folder", str(shop), "--config", str(pools)]) == 0
    shown = capsys.readouterr()
    assert f"cannot read {shop}: no permission for {unreadable_part(shop)}." in shown.err
    assert f"cannot read {pools}: no permission for {unreadable_part(pools)}." in shown.err
    assert "Warning" not in shown.out
