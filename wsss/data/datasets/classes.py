"""Class lists: names, prompt words and background prompts of each data set."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from wsss.config.base import Variant
from wsss.config.data import DataConfig
from wsss.data.datasets import words
from wsss.data.datasets.free_text import NOTHING, name_fault, plain_text
from wsss.data.errors import DataError

MAX_CLASSES = 254
"""Labels are uint8: 0 is background and 255 means ignore."""
_MAX_LETTERS = 100  # of a class name
_BACKGROUND = {"background", "bg"}
_ALIKE = str.maketrans(
    dict.fromkeys("\u2010\u2012\u2013\u2014\u2015\u2212", "-")
    | dict.fromkeys("\u2018\u2019", "'")
    | dict.fromkeys("\u200c\u200d", "")
    | {"_": " "}
)


@dataclass(frozen=True)
class ClassList:
    """The foreground classes of a data set; label 0 is background, label k is class k - 1."""

    name: str
    names: tuple[str, ...]
    prompts: tuple[str, ...]
    """The words for each class in a prompt; synonyms are separated by commas."""
    backgrounds: tuple[str, ...]
    """Words of the background prompts (CLIP-ES's background set)."""

    @property
    def label_count(self) -> int:
        """Number of labels, background included."""
        return len(self.names) + 1


def class_list(name: Literal["voc", "coco", "demo"], variant: Variant = "corrected") -> ClassList:
    """The classes of a data set, in label order.

    Args:
        name: name of the data set.
        variant: ``published`` has a misspelt COCO prompt word.
    """
    if name == "voc":
        return _build(name, words.VOC_NAMES, words.VOC_PROMPTS, words.VOC_BACKGROUNDS)
    if name == "coco":
        slips = words.COCO_PUBLISHED_PROMPTS if variant == "published" else {}
        prompts = words.COCO_PROMPTS | slips
        return _build(name, words.COCO_NAMES, prompts, words.COCO_BACKGROUNDS)
    return _build(name, words.DEMO_NAMES, {}, words.DEMO_BACKGROUNDS)


def configured_classes(data: DataConfig, variant: Variant = "corrected") -> ClassList | None:
    """The classes that a configuration names.

    Returns:
        None for photos without ``data.classes``, whose classes are the tags of their table.

    Raises:
        DataError: see `listed_classes` and `customise`; or ``data.classes`` are for another kind.
    """
    refuse_other_classes(data)
    if data.kind != "folder":
        classes = class_list(data.kind, variant)
    elif data.classes:
        classes = listed_classes(data.classes)
    else:
        return None
    return customise(classes, data.prompts, data.backgrounds)


def refuse_other_classes(data: DataConfig) -> None:
    """Refuse ``data.classes`` next to a data set that has classes of its own.

    Raises:
        DataError: there are some.
    """
    if data.classes and data.kind != "folder":
        raise DataError(f"data.classes is for kind folder; kind {data.kind} has its own class list")


def listed_classes(names: Sequence[str]) -> ClassList:
    """The classes of ``data.classes``.

    Raises:
        DataError: see `folder_classes`; the message names the key.
    """
    try:
        return folder_classes(names)
    except DataError as error:
        raise DataError(f"data.classes: {error}") from None


def folder_classes(names: Sequence[str]) -> ClassList:
    """Classes of a user's photos, with those of VOC's background words that are no classes.

    Raises:
        DataError: there are no names or too many, or a name is empty, contains a separator, a
            bracket or a control character, is too long, occurs twice or means the background.
    """
    if not names:
        raise DataError("there is no class: no image has a tag, and data.classes is empty")
    if len(names) > MAX_CLASSES:
        raise DataError(f"{len(names)} classes; label images of 8 bits hold at most {MAX_CLASSES}")
    as_written: dict[str, str] = {}
    by_spelling: dict[str, str] = {}
    for text in names:
        name = plain_text(text).strip()
        if not name or has_control(name) or len(name) > _MAX_LETTERS:
            raise DataError(
                f"class name {text[:_MAX_LETTERS]!r}: must not be empty or hold a line end or "
                f"control character, nor have more than {_MAX_LETTERS} letters"
            )
        if fault := name_fault(name):
            raise DataError(f"class name {text!r}: {fault}; list each name by itself")
        if is_background(name):
            raise DataError(
                f"class name {text!r}: label 0 is the background, which is no class; take it out"
            )
        if name.casefold() in NOTHING:
            raise DataError(
                f"class name {text!r}: in a table it says that a tag is missing; choose another "
                "name, and write that in the table, too"
            )
        if (first := as_written.setdefault(spelling(name), text)) is not text:
            raise DataError(
                f"class name {text!r} is the same as {first!r} (case, width, underscores and "
                "invisible characters are ignored); keep one of them"
            )
        by_spelling[spelling(name)] = " ".join(name.split())
    backgrounds = [word for word in words.VOC_BACKGROUNDS if spelling(word) not in by_spelling]
    return _build("folder", list(by_spelling.values()), {}, backgrounds)


def customise(
    classes: ClassList, prompts: Mapping[str, str], backgrounds: Sequence[str] | None
) -> ClassList:
    """Apply ``data.prompts`` and ``data.backgrounds`` of the configuration.

    Raises:
        DataError: a prompt is for something that is no class, or a background word is a class.
    """
    by_spelling = spellings(classes)
    changed = list(classes.prompts)
    for name, prompt in prompts.items():
        index = by_spelling.get(spelling(name))
        if index is None:
            raise DataError(f"data.prompts: {name!r} is no class{nearest(name, classes.names)}")
        changed[index] = _prompt_words("data.prompts", prompt)
    background_words = classes.backgrounds
    if backgrounds is not None:
        background_words = tuple(_prompt_words("data.backgrounds", word) for word in backgrounds)
    for word in background_words:
        if spelling(word) in by_spelling:
            raise DataError(f"data.backgrounds: {word!r} is one of the classes; take it out")
    return replace(classes, prompts=tuple(changed), backgrounds=background_words)


def has_control(text: str) -> bool:
    """Whether a text contains control characters, or bytes that are no text (surrogates)."""
    return any(unicodedata.category(character) in ("Cc", "Cs") for character in text)


def spelling(text: str) -> str:
    """The same text for all spellings of a class name.

    Ignores case, spaces, underscores, invisible characters, widths, kinds of hyphens and quotes.
    """
    return " ".join(plain_text(text).translate(_ALIKE).casefold().split())


def is_background(name: str) -> bool:
    """Whether a tag means label 0: ``background``, ``__background__``, ``BG`` …"""
    return re.sub("[ -]", "", spelling(name)) in _BACKGROUND


def unicode_form(text: str) -> str:
    """The composed form (NFC); file names from macOS come decomposed."""
    return unicodedata.normalize("NFC", text)


def spellings(classes: ClassList) -> dict[str, int]:
    """Accepted spelling of a tag → class index."""
    indices = {spelling(name): index for index, name in enumerate(classes.names)}
    aliases = {"voc": words.VOC_ALIASES, "coco": words.COCO_ALIASES}.get(classes.name, {})
    return {alias: indices[spelling(name)] for alias, name in aliases.items()} | indices


def nearest(name: str, candidates: Iterable[str]) -> str:
    """``; did you mean …?``, or nothing."""
    close = difflib.get_close_matches(name, list(candidates), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _prompt_words(key: str, text: str) -> str:
    """The words of a prompt as plain text.

    Raises:
        DataError: they are a list that was written as a text.
    """
    plain = plain_text(text)
    if not plain.strip() or re.match(r"\s*[\[({'\"]", plain):
        raise DataError(f"{key}: {text!r} is no word; write plain words, without brackets")
    return plain


def _build(
    name: str, names: Sequence[str], prompts: Mapping[str, str], backgrounds: Iterable[str]
) -> ClassList:
    prompt_words = tuple(prompts.get(class_name, class_name) for class_name in names)
    return ClassList(name, tuple(names), prompt_words, tuple(backgrounds))
