"""The accounting itself: it must see a loss, an answer to nothing, and a wrong fate, or a clean run proves nothing."""

from __future__ import annotations

import pytest

from faults.ledger import Answer, Fate, Ledger, Sent


def ledger(*answers: tuple[str, Fate]) -> Ledger:
    books = Ledger()
    for number in range(2):
        books.accept(Sent(f"m{number}", "encode", b"{}", "result", 1.0))
    books.accept(Sent("bad", "encode", b"", "dead", 1.0))
    for message_id, fate in answers:
        books.answer(Answer("encode", fate, message_id, b"", {}, 2.0))
    return books


COMPLETE: tuple[tuple[str, Fate], ...] = (("m0", "result"), ("m1", "result"), ("bad", "dead"))


def test_complete_books_have_no_violations() -> None:
    account = ledger(*COMPLETE).account()
    assert account.violations() == []
    assert (account.accepted, account.results, account.dead, account.duplicates) == (3, 2, 1, 0)


def test_a_duplicate_is_counted_and_allowed() -> None:
    account = ledger(*COMPLETE, ("m1", "result")).account()
    assert (account.duplicates, account.violations()) == (1, [])


@pytest.mark.parametrize(
    ("answers", "told"),
    [
        (COMPLETE[1:], "lost: m0"),
        ((*COMPLETE, ("stranger", "result")), "an answer to nothing: stranger"),
        ((("m0", "dead"), *COMPLETE[1:]), "encode m0: expected result, got ['dead']"),
        ((*COMPLETE, ("m0", "dead")), "encode m0: expected result, got ['dead', 'result']"),
        ((*COMPLETE, ("bad", "result")), "encode bad: expected dead, got ['dead', 'result']"),
    ],
)
def test_each_violation_is_told(answers: tuple[tuple[str, Fate], ...], told: str) -> None:
    assert ledger(*answers).account().violations() == [told]


def test_a_message_without_a_confirm_may_be_answered_or_not() -> None:
    books = ledger(*COMPLETE, ("unsure", "result"))
    books.doubt("unsure")
    books.doubt("never seen again")
    assert books.account().violations() == []
