"""The command line itself: help everywhere, exit codes, clear errors; nothing is started here."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from feedmill_local import cli, state
from feedmill_local.state import Stack, WorkerProcess

ENDED = WorkerProcess(pid=2**22 - 1, started=1, probe_url="http://127.0.0.1:1")


def run(*arguments: str) -> tuple[int, str]:
    """Exit code and output, without the handling of errors that :func:`main` adds."""
    result = CliRunner().invoke(cli.feedmill, arguments)
    return result.exit_code, result.output


def test_help_lists_every_command() -> None:
    code, output = run("--help")
    assert code == 0
    assert all(name in output for name in cli.COMMANDS)


@pytest.mark.parametrize("name", ["up", "down", "status", "logs", "serve"])
def test_every_command_has_help(name: str) -> None:
    code, output = run(name, "--help")
    assert code == 0
    assert output.startswith("Usage: ")


def test_an_unknown_command_is_wrong_usage() -> None:
    assert run("sned")[0] == 2


@pytest.mark.parametrize("arguments", [("status", "--json", "--watch"), ("logs", "nginx"), ("serve", "--port", "0")])
def test_wrong_usage(arguments: tuple[str, ...]) -> None:
    assert run(*arguments)[0] == 2


def main(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int | str | None:
    monkeypatch.setattr(sys, "argv", ["feedmill", *arguments])
    with pytest.raises(SystemExit) as leaving:
        cli.main()
    return leaving.value.code


@pytest.mark.parametrize("command", ["status", "up", "serve"])
def test_a_wrong_setting_is_named_and_exits_with_2(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RABBITMQ_URL", "http://user:geheim@broker")
    assert main(monkeypatch, command) == 2
    error = capsys.readouterr().err
    assert "RABBITMQ_URL" in error
    assert "geheim" not in error


@pytest.mark.parametrize("command", ["status", "up", "down", "serve"])
def test_a_damaged_state_is_a_clear_error(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(".feedmill").mkdir()
    Path(".feedmill/stack.json").write_text("{")
    assert main(monkeypatch, command) == 1
    assert "stack.json: expected what `feedmill up` writes" in capsys.readouterr().err


def test_down_without_a_stack_does_nothing() -> None:
    assert run("down") == (0, "nothing runs\n")
    assert not Path(".feedmill").exists()


def test_down_forgets_a_stack_that_has_died(tmp_path: Path) -> None:
    folder = tmp_path / ".feedmill"
    state.save(folder, Stack("amqp://h/", "mongodb://h", "feedmill", {"toxic": ENDED}, ("rabbitmq", "database")))
    assert run("down") == (0, "nothing runs\n")
    assert state.load(folder) is None


def test_purge_removes_data_and_logs_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / ".feedmill"
    for name in ("rabbitmq", "database", "logs", "mine"):
        (folder / name).mkdir(parents=True)
        (folder / name / "file").write_text("x")
    assert run("down", "--purge")[0] == 0
    assert {path.name for path in folder.iterdir()} == {"lock", "mine"}


def test_status_of_nothing_says_how_to_start() -> None:
    code, output = run("status")
    assert code == 1
    assert "`feedmill up` starts it" in output
    code, output = run("status", "--json")
    assert code == 1
    assert json.loads(output)["healthy"] is False


def test_logs_without_any_say_so() -> None:
    code, output = run("logs")
    assert code == 1
    assert "there is no log" in output


def test_logs_show_the_last_lines_without_credentials(tmp_path: Path) -> None:
    logs = tmp_path / ".feedmill" / "logs"
    logs.mkdir(parents=True)
    (logs / "toxic.log").write_text("one\ntwo amqp://user:geheim@host/\nthree\x1b[0m\n")
    assert run("logs", "toxic", "-n", "2") == (0, "two amqp://***@host/\nthree\n")
    assert run("logs", "-n", "1") == (0, "toxic    | three\n")
