"""Normalising: disguises are undone, plain text stays."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedmill.models.normalise import normalise


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("ｙｏｕ　ｉｄｉｏｔ", "you idiot"),  # noqa: RUF001
        ("i\u200bd\u200bi\u200bo\u200bt", "idiot"),
        ("yоu аre аn idiоt", "you are an idiot"),  # noqa: RUF001
        ("f u c k you", "fuck you"),
        ("f.u.c.k y.o.u", "fuck you"),
        ("s-t-u-p-i-d", "stupid"),
        ("fuuuuuck youuuu", "fuck you"),
        ("looooooser", "loser"),
        ("dumb asssss", "dumb ass"),
        ("w h a t a b u n c h o f m o r o n s", "what a bunch of morons"),
        ("x y z z y q", "xyzzyq"),
        ("a$$hole", "asshole"),
        ("b1tch, k1ll y0urself", "bitch, kill yourself"),
        ("f**k this sh*t", "fuck this shit"),
        ("you 1d10t", "you idiot"),
        ("KYS now", "kill yourself now"),
        ("stfu", "shut the fuck up"),
        ("🖕", "middle finger fuck you"),
        ("immigrants are 🐀", "immigrants are rat"),
        ("le💲💲er", "lesser"),
        ("🤡🤡🤡🤡", "clown clown"),
        ("👍🏽", "thumbs up"),
    ],
)
def test_disguises(text: str, plain: str) -> None:
    assert normalise(text) == plain


@pytest.mark.parametrize(
    "text",
    [
        "The train to Lyon leaves at nine.",
        "Привет, как дела?",
        "Καλημέρα σε όλους",
        "mp3, h264, covid19, i18n, 4chan, b2b and 2nd",
        "mail user@example.org or see https://example.org/a1b2/c1d",
        "wow!!! really?? e.g. this, i.e. that",
        "$100 for a coffee at 5pm on 3/4",
        "C++ and C# are languages",
        "Đi chơi nhé, đẹp quá",
        "lmao wtf",
    ],
)
def test_plain_text_stays(text: str) -> None:
    assert normalise(text) == text


@given(st.text(max_size=200))
def test_any_text(text: str) -> None:
    once = normalise(text)
    assert once == " ".join(once.split())
    assert "\u200b" not in once
