"""Log lines: JSON that parses, the worker's name, and no credentials."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymongo.errors import ServerSelectionTimeoutError
from pymongo.logger import _log_client_error

from feedmill import logs
from feedmill.settings import LogSettings

SECRET = "hunter2"
URL = f"amqp://user:{SECRET}@host:5672/vhost"


def configured(kind: str, capsys: pytest.CaptureFixture[str]) -> logging.Logger:
    logs.configure(LogSettings(log_format=kind), "toxic")
    capsys.readouterr()
    return logging.getLogger("feedmill.test")


def json_lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_json_lines_parse_and_name_the_worker(capsys: pytest.CaptureFixture[str]) -> None:
    configured("json", capsys).info('hello "%s"\n%s', "wörld", "two lines", extra={"batch": 3})
    (line,) = json_lines(capsys)
    assert line["message"] == 'hello "wörld"\ntwo lines'
    assert (line["level"], line["logger"], line["worker"], line["batch"]) == ("INFO", "feedmill.test", "toxic", 3)
    assert line["time"]


def test_text_lines_name_the_worker(capsys: pytest.CaptureFixture[str]) -> None:
    configured("text", capsys).warning("careful")
    assert "toxic  WARNING careful" in capsys.readouterr().err


def test_auto_is_json_where_no_terminal_is(capsys: pytest.CaptureFixture[str]) -> None:
    configured("auto", capsys).info("x")
    assert json_lines(capsys)[0]["message"] == "x"


def test_an_outage_met_by_the_drivers_housekeeping_is_a_line_and_a_bug_is_a_traceback(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Found by a database that could not be reached while the driver was closing a cursor."""
    configured("json", capsys)
    for error in (ServerSelectionTimeoutError(f"no answer from {URL}"), ZeroDivisionError()):
        try:
            raise error  # noqa: TRY301
        except Exception:
            _log_client_error()
    outage, bug = json_lines(capsys)
    assert "exc_info" not in outage
    assert outage["level"] == "WARNING"
    assert "ServerSelectionTimeoutError" in outage["message"]
    assert SECRET not in outage["message"]
    assert bug["level"] == "ERROR"
    assert "ZeroDivisionError" in bug["exc_info"]


@pytest.mark.parametrize("kind", ["json", "text"])
def test_credentials_never_reach_a_line(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    log = configured(kind, capsys)
    log.info("connecting to %s", URL)
    log.info("connecting", extra={"url": URL, "nested": {"uri": [URL]}})
    cause = OSError(f"can't reach {URL}")
    log.error("failed: %s", cause, exc_info=ValueError("wrapped", cause))
    log.error("failed", exc_info=ExceptionGroup("several", [cause]))
    written = capsys.readouterr().err
    assert SECRET not in written
    assert "host:5672/vhost" in written
    if kind == "json":
        assert all(json.loads(line) for line in written.splitlines())


@pytest.mark.parametrize(
    "url",
    [
        f"amqp://u:{SECRET}@h",
        f"AMQPS://u:{SECRET}@h",
        f"mongodb+srv://u:{SECRET}@h/?a=b",
        f"https://{SECRET}@h",
        f"amqp://u:{SECRET}@x@h",
        f"amqp://u:p@{SECRET}@h",
        f"amqp://u:{SECRET}/x@h",
        f"amqp://u:p/{SECRET}@h",
        f"amqp://u:\\{SECRET}@h",
        f"amqp://u:é{SECRET}@h",
    ],
)
@pytest.mark.parametrize("kind", ["json", "text"])
def test_even_badly_written_credentials_are_hidden(url: str, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    configured(kind, capsys).info("url %s end", url)
    written = capsys.readouterr().err
    assert SECRET not in written
    assert "***@" in written
    assert "end" in written


def test_a_quote_in_a_password_ends_no_word_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    configured("json", capsys).info("url %s", f'amqp://u:"{SECRET}"@h')
    assert SECRET not in capsys.readouterr().err


@given(st.text(st.characters(codec="utf-8"), max_size=80))
def test_redaction_never_breaks_json(text: str) -> None:
    line = json.dumps({"a": text, "url": f"amqp://u:{SECRET}@h", "b": text})
    redacted = json.loads(logs.redact(line))
    assert redacted["url"] == "amqp://***@h"
    assert set(redacted) == {"a", "b", "url"}


def test_text_without_credentials_stays_as_it_is() -> None:
    for text in ("see https://example.org/x", "mail me@example.org", "a://b c@d", "amqp://host:5672/"):
        assert logs.redact(text) == text


def test_noisy_libraries_are_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    configured("json", capsys)
    for name in ("aiormq.connection", "aio_pika.queue"):
        logging.getLogger(name).error("the supervisor says this once")
    assert capsys.readouterr().err == ""
    assert logging.getLogger().handlers[0].stream is sys.stderr  # type: ignore[attr-defined]
