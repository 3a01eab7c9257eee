"""Undoing what hides a word from a model's vocabulary: look-alikes, invisible characters, spacing, leet, emoji.

For classifiers that were trained on texts written this way. Pure, linear in the text's length, standard library only.
"""

from __future__ import annotations

import re
import unicodedata

# Cyrillic and Greek letters that look like Latin ones, replaced only in words that hold Latin letters too: a word in
# Russian stays Russian. A few of Unicode's confusables (UTS 39), those seen in disguised words.
_LOOK_ALIKES = str.maketrans(
    "абвгдеёзікмностурхԁѕјһԛԝьАВЕЅІЈКМНОРСТУХαβεηικμνορτυχωΑΒΕΖΗΙΚΜΝΟΡΤΥΧı",
    "abbrdeezikmhoctypxdsjhqwbABESIJKMHOPCTYXabenikuvoptuxwABEZHIKMNOPTYXi",
)
_LEET = str.maketrans("013457@$!+", "oieastasit")

_WORD = re.compile(r"[^\W_]+")
# Not within an address: "user@example.org" and "https://a.org/c1d" are no leet.
_LEET_WORD = re.compile(r"(?<![\w@$!+./:])(?=[\w@$!+]*[^\W\d_])[\w@$!+]++(?![./:@]\w)")
_SANDWICHED = re.compile(r"[a-z][013457@$!+]{1,2}[a-z]", re.IGNORECASE)
_LEADING = re.compile(r"\$[a-z]{2}|[@4](?:ss|\$\$)")
# Single letters with the same separator between: three or more of them, so that "a b" and "e.g." stay.
_SPACED = re.compile(r"(?<![^\W_])[^\W\d_](?:([ .\-_*|/])[^\W\d_]\b(?:\1[^\W\d_](?![^\W_]))+)")
_RUN = re.compile(r"([^\W\d_])\1{2,}", re.IGNORECASE)
_LONG_PUNCTUATION = re.compile(r"([!?.,*~_\-=])\1{3,}")

# Masked letters (f**k) and what they stand for. Only words whose mask leaves no doubt.
_MASKED = tuple(
    (re.compile(rf"(?<![\w*])(?:{pattern})(?![*])", re.IGNORECASE), word)
    for pattern, word in (
        (r"f[*#@]{1,3}c?k|fu[*#]k|fuc[*#]", "fuck"),
        (r"f\*{2,3}(?!\w)", "fuck"),
        (r"s[*#]{1,2}t|sh[*#]{1,2}t|s[*#]it", "shit"),
        (r"b[*#]{1,2}t?[*#]?ch|bi[*#]ch", "bitch"),
        (r"a[*#]{2}h[*#]?o[*#]?le", "asshole"),
        (r"c[*#]{1,2}n?t(?!\w)", "cunt"),
        (r"d[*#]{1,2}c?k(?!\w)", "dick"),
        (r"n[*#]{1,3}g?g?[*#]?er", "nigger"),
        (r"wh[*#]re", "whore"),
        (r"f[*#]gg?[*#]t", "faggot"),
        (r"r[*#]t[*#]rd", "retard"),
        (r"[1!|]d[i1!|][o0]t", "idiot"),
    )
)

# Abbreviations that are attacks, spelt out; those that are mere surprise or laughter (wtf, lmao) are left alone.
_SLANG = {
    "kys": "kill yourself",
    "kysnow": "kill yourself now",
    "stfu": "shut the fuck up",
    "gtfo": "get the fuck out",
    "foad": "fuck off and die",
    "diaf": "die in a fire",
    "gfy": "go fuck yourself",
    "gfys": "go fuck yourself",
    "ihu": "i hate you",
    "kyfs": "kill your fucking self",
}
_SLANG_WORD = re.compile(rf"\b(?:{'|'.join(sorted(_SLANG, key=len, reverse=True))})\b", re.IGNORECASE)

_DOUBLED = frozenset("eolsf")
"""Letters that English doubles: a longer run of them ("coool", "asssss") is cut to two, of others to one."""

# What insults and threats are made of: enough to part "y o u i d i o t", and to read "mooorooon" with single letters.
_LEXICON = frozenset(
    """
    a an am and are as ass asshole bastard bitch black bunch clown coward creep cunt die dick do dumb dumbass
    everybody everyone fag faggot fat freak fuck fucking gay get go going gonna hate have he her him his hope i
    idiot idiots im in is it jerk jew just kill like liar life loser losers man me mom moron morons mother
    muslim my nasty nigger no nobody of off on out people person piece pig rat retard scum self she shit shut
    sick slut so stupid such suck that the them they this to too total trash troll ugly up ur useless very want
    we what whore will with woman women world worst worthless you your youre yourself
    """.split()  # noqa: SIM905  the list literal would fill a screen
)
_LONGEST_WORD = max(map(len, _LEXICON))
_MOST_PARTED = 80
"""Letters; a longer row of single letters is not parted."""

_SKIN_TONES = range(0x1F3FB, 0x1F400)
_REGIONAL = range(0x1F1E6, 0x1F200)
# Signs whose Unicode names say less than people mean by them.
_SIGNS = {
    "🖕": "middle finger fuck you",
    "💩": "shit",
    "💲": "s",
    "🅰": "a",
    "🅱": "b",
    "🅾": "o",
    "🤡": "clown",
    "🔫": "gun",
    "🔪": "knife",
    "👍": "thumbs up",
    "👎": "thumbs down",
    "❤": "love heart",
}
_LETTER_SIGNS = frozenset("💲🅰🅱🅾")


def normalise(text: str) -> str:
    """``text`` with disguises undone. Plain text, in any language, comes back as it was but for white space.

    In this order: compatibility forms (full-width, mathematical letters), invisible characters, emoji by name,
    look-alike letters, spaced-out words, masked letters, leet, elongations, slang abbreviations.
    """
    text = _visible(unicodedata.normalize("NFKC", text))
    text = "".join(_sign(char) if ord(char) > 0x2000 and unicodedata.category(char) == "So" else char for char in text)
    text = _WORD.sub(lambda match: _latin(match[0]), text)
    text = _SPACED.sub(lambda match: _parted(match[0].replace(match[1], "")), text)
    for pattern, word in _MASKED:
        text = pattern.sub(word, text)
    text = _LEET_WORD.sub(lambda match: _plain(match[0]), text)
    if _RUN.search(text):
        text = _WORD.sub(lambda match: _shortened(match[0]), text)
    text = _LONG_PUNCTUATION.sub(lambda match: match[1] * 3, text)
    text = _SLANG_WORD.sub(lambda match: _SLANG[match[0].lower()], text)
    return " ".join(_once(text.split()))


def _visible(text: str) -> str:
    """Without format characters (zero width, direction, variation), which can part a word and show nothing."""
    if text.isascii():
        return text
    return "".join(
        char
        for char in text
        if not (unicodedata.category(char) == "Cf" or "\ufe00" <= char <= "\ufe0f" or ord(char) in _SKIN_TONES)
    )


def _sign(char: str) -> str:
    """A sign or emoji as words, by its name in Unicode: few of them are in a model's vocabulary."""
    if ord(char) in _REGIONAL:
        return " "
    name = _SIGNS.get(char) or unicodedata.name(char, "").lower().removesuffix(" sign")
    return name if char in _LETTER_SIGNS else f" {name} "


def _latin(word: str) -> str:
    return word.translate(_LOOK_ALIKES) if not word.isascii() and re.search("[A-Za-z]", word) else word


def _plain(word: str) -> str:
    """A word in leet as letters; any other as it is: "covid19", "mp3" and "i18n" have no digit between letters to
    read, or digits that stand for none."""
    body = word.rstrip("!")
    if re.search("[2689]", body) or not (_SANDWICHED.search(body) or _LEADING.match(body)):
        return word
    # A 1 can be an i ("k1ll") or an l ("1ove"): between letters it is an i far oftener.
    return body.translate(_LEET) + word[len(body) :]


def _parted(letters: str) -> str:
    """Joined letters as words, where they are words of the lexicon from end to end; otherwise as they are."""
    if len(letters) > _MOST_PARTED:
        return letters
    ways: list[list[str] | None] = [[]]
    for end in range(1, len(letters) + 1):
        ways.append(None)
        for start in range(max(0, end - _LONGEST_WORD), end):  # the longest word first
            before = ways[start]
            if before is not None and letters[start:end].lower() in _LEXICON:
                ways[end] = [*before, letters[start:end]]
                break
    return " ".join(ways[-1] or [letters])


def _shortened(word: str) -> str:
    """A word without runs of a letter; of single letters where that alone makes a word of the lexicon."""
    usual = _RUN.sub(lambda match: match[1] * (2 if match[1].lower() in _DOUBLED else 1), word)
    single = _RUN.sub(r"\1", word)
    return single if single.lower() in _LEXICON and usual.lower() not in _LEXICON else usual


def _once(words: list[str]) -> list[str]:
    """Without a third repetition of a word in a row: ten clown faces say what two say."""
    return [word for i, word in enumerate(words) if i < 2 or not word == words[i - 1] == words[i - 2]]
