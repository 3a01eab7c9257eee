"""What `feedmill send` reads, and how it shows what others wrote."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from feedmill_local.sources import InputError, encode, from_file, from_lines
from feedmill_local.terminal import printable, show_table


def test_json_lines_leave_out_empty_lines() -> None:
    lines = [b'{"content": "one"}\n', b"\n", b"  \n", '{"content": "zwölf"}'.encode()]
    assert from_lines(lines, "standard input") == [{"content": "one"}, {"content": "zwölf"}]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"not json", "line 3: expected a JSON object in UTF-8"),
        (b"\xff\xfe", "line 3: expected a JSON object in UTF-8"),
        (b'{"a": NaN}', "line 3: expected a JSON object in UTF-8"),
        (b"[1]", "line 3: expected a JSON object, got an array"),
        (b'"text"', "line 3: expected a JSON object, got text"),
        (b"null", "line 3: expected a JSON object, got null"),
    ],
)
def test_a_bad_line_is_named(line: bytes, expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        from_lines([b"{}", b"", line, b"{}"], "standard input")


def test_a_file_is_one_object_an_array_or_lines() -> None:
    assert from_file(b'{"a": 1}', "one.json") == [{"a": 1}]
    assert from_file(b'[{"a": 1},\n {"a": 2}]', "many.json") == [{"a": 1}, {"a": 2}]
    assert from_file(b'{"a": 1}\r\n{"a": 2}\r\n', "many.JSONL") == [{"a": 1}, {"a": 2}]


def test_a_bad_entry_of_an_array_is_named() -> None:
    with pytest.raises(InputError, match=r"many.json, entry 2: expected a JSON object, got a number"):
        from_file(b'[{"a": 1}, 2]', "many.json")


def test_broken_bytes_of_a_command_line_are_refused() -> None:
    with pytest.raises(InputError, match="expected text in UTF-8"):
        encode({"content": "\udcff"})


def test_control_characters_never_reach_the_terminal() -> None:
    assert printable("a\x1b[31mb\x07\u202ec\n", 100) == "a\\x1b[31mb\\x07\\u202ec\\n"
    assert printable("a\n\tb\r", 100, lines=True) == "a\n\tb\\r"
    assert printable("x" * 20, 10) == "x" * 9 + "…"


def test_a_table_is_plain_lines_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    show_table(Console(file=io.StringIO()), "Title", ("name", "count>"), [("a", "10"), ("bcdef", "9")])
    assert capsys.readouterr().out == "Title\n  name   count\n  a         10\n  bcdef      9\n"


def test_a_table_shows_markup_as_it_is() -> None:
    out = io.StringIO()
    show_table(Console(file=out, force_terminal=True, width=60), "Title", ("text",), [("[red]not red[/red]",)])
    assert "[red]not red[/red]" in out.getvalue()
