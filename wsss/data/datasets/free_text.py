"""Free text that people and tools write: texts that look alike become equal, lists become names."""

from __future__ import annotations

import ast
import functools
import json
import re
import unicodedata
import warnings
from typing import Final

from wsss.data.errors import DataError

_SEPARATOR = r";,|\t\n\v\f\r\x85\xa6\u060c\u061b\u201a\u2028\u2029\u2223\u2502\u3001"
SEPARATORS: Final = re.compile(rf"[{_SEPARATOR}]")
"""Between names, once compatibility forms (full-width comma, semicolon, bar) are resolved: also the
Arabic comma and semicolon, the ideographic comma, other bars and ends of lines."""
_INVISIBLE = re.compile(
    r"[\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200e\u200f\u202a-\u202e"
    r"\u2060-\u206f\u2800\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff9-\ufffb\U000e0000-\U000e0fff]"
    # Joiners shape Persian and Indic words; elsewhere they are invisible.
    r"|(?<![^\x00-\x7f])[\u200c\u200d]|[\u200c\u200d](?![^\x00-\x7f])"
)
_SINGLE, _DOUBLE = "'`\u2018\u2019\u201b", '"\u201c\u201d\u201e\xab\xbb\u300c\u300d\u300e\u300f'
_STRAIGHT = str.maketrans(
    dict.fromkeys(_SINGLE, "'") | dict.fromkeys(_DOUBLE, '"') | {"\u3010": "[", "\u3011": "]"}
)
_STARTS_QUOTED = re.compile(rf"[bu]?[{_SINGLE}{_DOUBLE}]")
_BRACKETS = re.compile(r"[\[\]{}\u3010\u3011]")
_QUOTED = re.compile(
    r"""\s*(?P<call>[A-Za-z_][\w.]*\()?[bu]?(?P<text>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")""",
    re.DOTALL,
)
_BARE = re.compile(rf"""[^'"\[\]{{}}:{_SEPARATOR}]+""")
_NEXT = re.compile(rf"\s*[{_SEPARATOR}]\s*|\s+|$")
NOTHING: Final = frozenset({"none", "null", "nan", "<na>"})
"""What programs write where there is no value, with small letters."""
_EMPTY = {"set()", "frozenset()"}
_MAX_NESTED, _MAX_SHOWN = 3, 60


def plain_text(text: str) -> str:
    """A text without invisible characters, compatibility forms resolved (NFKC).

    Zero-width spaces, soft hyphens, byte-order and direction marks vanish; full-width letters, the
    ideographic space, ligatures and decomposed accents become the usual characters.
    """
    return text if text.isascii() else unicodedata.normalize("NFKC", _INVISIBLE.sub("", text))


@functools.lru_cache(maxsize=2**14)  # the cells of a table repeat
def split_names(text: str) -> tuple[str, ...]:
    """The names in a cell, which separates them or is a serialised list, without empty ones.

    ``cat; dog``, ``['cat', 'dog']``, ``["cat"]``, ``('cat',)``, ``{cat,dog}`` and numpy's
    ``['cat' 'dog']`` are understood, also as a text within a text. ``nan`` and ``None``, which
    tables of pandas have where a tag is missing, are no names.

    Raises:
        DataError: it looks like serialised data, but is no list of names.
    """
    return tuple(_split(text, _MAX_NESTED))


def name_fault(name: str) -> str:
    """Why a text cannot be one name in a table; empty if it can."""
    if match := SEPARATORS.search(name):
        return f"holds {match[0]!r}, which separates names"
    if name[:1] in {*_SINGLE, *_DOUBLE} or _BRACKETS.search(name):
        return "holds a bracket or begins with a quotation mark"
    return ""


def _split(text: str, depth: int) -> list[str]:
    plain = plain_text(text).strip()
    if plain in _EMPTY:
        return []
    if plain[:1] == "(" or _STARTS_QUOTED.match(plain) or _BRACKETS.search(plain):
        names = _serialised(plain.translate(_STRAIGHT), depth)
    else:
        parts = [part.strip() for part in SEPARATORS.split(plain)]
        names = [part for part in parts if part and part.casefold() not in NOTHING]
    if names is None or any(map(name_fault, names)):
        shown = plain[:_MAX_SHOWN] + "…" * (len(plain) > _MAX_SHOWN)
        raise DataError(f"tags that are no list of names: {shown!r}; write them as cat;dog")
    return names


def _serialised(text: str, depth: int) -> list[str] | None:
    """The names of a serialised list; None if it is none."""
    bracketed = text[:1] + text[-1:] in ("[]", "{}") or _is_tuple(text)
    if not bracketed and text.startswith("("):
        return [part.strip() for part in SEPARATORS.split(text) if part.strip()]
    inner = text[1:-1].strip() if bracketed else text
    names: list[str] = []
    position = 0
    while position < len(inner):
        if match := _QUOTED.match(inner, position):
            content = _unquoted(match["text"])
            end = match.end() + bool(match["call"])
            if content is None or not depth or inner[match.end() : end] not in ("", ")"):
                return None
            names += _split(content, depth - 1)
        else:
            match = _BARE.match(inner, position) if bracketed else None
            if match is None or match[0].strip().casefold() in NOTHING:
                return None
            names.append(match[0].strip())
            end = match.end()
        following = _NEXT.match(inner, end)
        if following is None:
            return None
        position = following.end()
    return [name for name in names if name]


def _is_tuple(text: str) -> bool:
    """Whether parentheses enclose the whole text, as in ``('cat', 'dog')``, not ``(a) b (c)``."""
    if len(text) < 2 or text[0] + text[-1] != "()":
        return False
    return _QUOTED.match(text, 1) is not None or not re.search("[()]", text[1:-1])


def _unquoted(text: str) -> str | None:
    """The content of a text in quotation marks, as JSON or Python writes it; None if it is none."""
    if "\\" not in text:
        return text[1:-1]
    try:
        return str(json.loads(text))  # pairs of surrogates, which Python writes otherwise
    except ValueError:
        pass
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # of unknown escapes
            return str(ast.literal_eval(text))
    except (ValueError, SyntaxError, Warning):
        return None
