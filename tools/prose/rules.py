"""The rules: length of sentences, semicolons, and phrases that have a plainer form."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

MAX_WORDS = 25
MAX_AVERAGE = 16.0
MIN_SENTENCES = 5  # fewer have no average worth the name
SENTENCES_PER_SEMICOLON = 10

_UNITS = "image|class|stage|run|job|split|pixel|training|step|crop|epoch|second|method|part"
_COUNTED = (
    r"twice|times|one|two|three|\d[\d.]*|jobs?|files?|rows?|masks?|shards?|MB|GB|ms|s|"
    r"seconds?|minutes?|hours?"
)
_PLAINER = [
    (re.compile(pattern, re.IGNORECASE), advice)
    for pattern, advice in [
        (rf"\b(?:{_COUNTED}) an? (?:{_UNITS})\b", "write “per …”"),
        (r"^(?:Of|From|Into|Onto|Upon) [\w\s]+, ?(?:it|they|that) \w+s?\b", "subject first"),
        (r"^Of \w", "subject first"),
        (r"^Nor\b|[.;] nor\b", "write “… not … either”"),
        (r"^So (?:do|does|did|is|are|was|were|has|have|can)\b", "write “… also …”"),
        (r"^(?:Neither|Never|Only then|Not only) (?:do|does|is|are|can)\b", "subject first"),
        (r"\bbeside\b", "write “next to” or “in addition to”"),
        (r"\bsave that\b|\bsave for\b|\bbut for\b", "write “except”"),
        (r"\bhangs? on\b", "write “depends on”"),
        (r"\b(?:is|are) told of\b", "write “is reported”"),
        (r"\banew\b", "write “again”"),
        (r"\bthere(?:of|upon|in|with)\b|\bwhere(?:of|upon|with)\b|\blest\b|\bhence\b", "plainer"),
        (r"\bin force\b", "write “that apply”"),
        (r"\bthe (?:former|latter)\b", "repeat the noun"),
    ]
]
_ABBREVIATION = re.compile(r"\b(e\.g|i\.e|cf|vs|al|eq|Eq|Fig|fig|approx|no|No|etc)\.(?=\s+\S)")
# A full stop ends a sentence whatever follows, since names of files and keys start small.
_END = re.compile(r"(?<=[.!?])[)”\"’]?\s+|(?<=:)\s+(?=[(“\"‘]?[A-Z0-9])")
_WORD = re.compile(r"[A-Za-z][\w'’-]*|\d[\d.,]*")


class Passage(NamedTuple):
    """A paragraph, list item or description, with code and math replaced by X."""

    line: int
    text: str


class Complaint(NamedTuple):
    """What is wrong, and at which line."""

    line: int
    text: str


def sentences(passage: Passage) -> Iterator[Passage]:
    """The sentences of a passage, each with the line where it starts."""
    text = _ABBREVIATION.sub(r"\1 ", passage.text)
    start = 0
    for end in [*(match.end() for match in _END.finditer(text)), len(text)]:
        piece = text[start:end]
        skipped = len(piece) - len(piece.lstrip())
        line = passage.line + text.count("\n", 0, start + skipped)
        if _WORD.search(piece):
            yield Passage(line, " ".join(piece.split()))
        start = end


def complaints(passages: Sequence[Passage]) -> list[Complaint]:
    """What the rules say against the passages of one file, in the order of their lines."""
    parts = [part for passage in passages for part in sentences(passage)]
    checks = (_against_sentences, _against_average, _against_semicolons)
    return sorted(complaint for check in checks for complaint in check(parts))


def _against_sentences(parts: Sequence[Passage]) -> Iterator[Complaint]:
    for line, text in parts:
        if (length := _length(text)) > MAX_WORDS:
            yield Complaint(line, f"{length} words (at most {MAX_WORDS}): {text}")
        for pattern, advice in _PLAINER:
            if match := pattern.search(text):
                yield Complaint(line, f"“{match[0]}”: {advice}: {text}")


def _against_average(parts: Sequence[Passage]) -> Iterator[Complaint]:
    if len(parts) >= MIN_SENTENCES:
        average = sum(_length(text) for _, text in parts) / len(parts)
        if average > MAX_AVERAGE:
            text = f"{average:.1f} words per sentence on average (at most {MAX_AVERAGE:.0f})"
            yield Complaint(parts[0].line, text)


def _against_semicolons(parts: Sequence[Passage]) -> Iterator[Complaint]:
    allowed = max(1, len(parts) // SENTENCES_PER_SEMICOLON)
    if sum(text.count(";") for _, text in parts) > allowed:
        for line, text in parts:
            if ";" in text:
                yield Complaint(line, f"semicolon (at most {allowed} in this file): {text}")


def _length(text: str) -> int:
    return len(_WORD.findall(text))
