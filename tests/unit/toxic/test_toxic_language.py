"""Which language a comment is in, and whether it has words at all."""

from __future__ import annotations

import pytest

from feedmill_toxic.language import has_words, identify


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Das Wetter ist heute wunderbar und wir gehen im Park spazieren", "de"),
        ("Merci beaucoup pour votre aide hier soir", "fr"),
        ("¿Dónde puedo comprar entradas para el concierto?", "es"),
        ("Mày là đồ ngu, câm mồm đi", "vi"),
        ("Заткнись, ты тупой идиот", "ru"),
        ("Поезд отправляется в девять часов утра", "ru"),
        ("お前は馬鹿だ、死ね", "ja"),
        ("닥쳐 이 바보야", "ko"),
        ("Do you know when the library opens on Sunday?", "en"),
        ("You are a stupid idiot and nobody likes you", "en"),
    ],
)
def test_sentences(text: str, language: str) -> None:
    assert identify(text) == language


@pytest.mark.parametrize("text", ["", "lol", "wtf bro", "kys", "🖕", "https://example.de/das-ist-ein-link", "Ok Olaf"])
def test_too_little_to_tell(text: str) -> None:
    assert identify(text) is None


@pytest.mark.parametrize(
    ("text", "has"),
    [
        ("", False),
        (" \n\t", False),
        ("https://example.org/a?b=c", False),
        ("www.example.org http://example.org", False),
        ("see https://example.org", True),
        ("🖕", True),
        ("!", True),
    ],
)
def test_whether_there_is_anything_to_judge(text: str, has: bool) -> None:
    assert has_words(text) is has
