"""The knowledge base: sentences on what the classes look like, built in and from users.

It is JSON, ``{class: [sentences]}``. Sentences say what can be seen ("it has four legs …") and do
not name the class. The built-in files were written for this project.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from wsss.artifacts.atomic import write_text
from wsss.config.safe_yaml import read_bytes
from wsss.data.counted import counted
from wsss.data.datasets.classes import ClassList, spelling
from wsss.data.datasets.words import COCO_ALIASES
from wsss.errors import WsssError, raise_unless_about

Knowledge = dict[str, list[str]]
_log = logging.getLogger(__name__)

BUILT_IN = Path(__file__).parent / "descriptions"
_MAX_BYTES = 2**26
MAX_CHARACTERS = 300
"""Characters of a sentence; the text tower reads 77 tokens."""

_HEADING = re.compile(r"^(#+\s*|\*\*)?(?P<name>[^#*:]+?)(\*\*)?:?(\*\*)?\s*$")
_BULLET = re.compile(r"^(?:[-*•–]|\(?\d+[.)])\s+")
_QUOTES = "\"'“”‘’,"


class KnowledgeError(WsssError, ValueError):
    """Descriptions cannot be used; the message names them and says what to do."""


def descriptions(classes: ClassList, user_file: Path | None = None) -> Knowledge:
    """Sentences of every class of a list, in its order.

    Args:
        classes: the list; the demo has its own built-in file, all others share one, in which VOC's
            names are aliases of COCO's.
        user_file: replaces classes of the built-in file; aliases count in it, too.

    Raises:
        KnowledgeError: the file cannot be used, or a class has no sentence.
    """
    available = _by_spelling(read(built_in(classes.name)))
    if user_file is not None:
        available |= _by_spelling(read(user_file))
    missing = [name for name in classes.names if spelling(name) not in available]
    if missing:
        raise KnowledgeError(
            f"no description of {', '.join(missing)}: write some and name the file in "
            "cams.patch_text.tse.knowledge (`wsss knowledge prompt` and `wsss knowledge add` "
            "help), or set cams.patch_text.tse.form to off"
        )
    return {name: available[spelling(name)] for name in classes.names}


def without_prompt(sentence: str, template: str) -> str:
    """A sentence without the prompt that it may begin with, as those of ExCEL's release do.

    Args:
        sentence: "a clean origami dog. it has four legs"
        template: of the prompt; without words on both sides of ``{}`` none is recognised.
    """
    before, _, after = template.partition("{}")
    if not (before.strip() and after.strip()):
        return sentence
    beginning = rf"{re.escape(before)}.+?{re.escape(after)}\s+(?=\S)"
    return re.sub(f"^{beginning}", "", sentence, count=1, flags=re.IGNORECASE)


def _by_spelling(knowledge: Knowledge) -> Knowledge:
    """By what a class name is compared by, under every name that the class has."""
    available = {spelling(name): sentences for name, sentences in knowledge.items()}
    for pair in COCO_ALIASES.items():
        alias, name = map(spelling, pair)
        for one, other in ((alias, name), (name, alias)):
            if one in available:
                available.setdefault(other, available[one])
    return available


def built_in(list_name: str) -> Path:
    """The package's file for a class list (by name): that of the demo, or that of all others."""
    return BUILT_IN / ("demo.json" if list_name == "demo" else "objects.json")


def read(path: Path) -> Knowledge:
    """Read a knowledge base.

    Raises:
        KnowledgeError: it is missing, no JSON of the form, or a sentence is empty or too long.
    """
    try:
        content = json.loads(read_bytes(path, _MAX_BYTES))
    except OSError as error:
        raise_unless_about(path, error)
        raise KnowledgeError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise KnowledgeError(
            f"{path}: is no JSON ({error}); expected {{class: [sentences]}}"
        ) from None
    return _checked(content, str(path))


def parse(text: str, where: str, *, class_names: Sequence[str] = ()) -> Knowledge:
    """Read descriptions that people or language models wrote.

    JSON is read as such. Otherwise a line with a class alone (``dog:``, ``## dog``, ``**Dog**``)
    is a heading, followed by its sentences, one per line; bullets, numbers and quotes are removed.
    Text before the first class is left out, with a warning.

    Args:
        where: source of the text, for messages.
        class_names: headings even without a mark; if there is one alone, text without a heading
            describes it.

    Raises:
        KnowledgeError: there is no description, or a sentence is too long.
    """
    if text.lstrip().startswith("{"):
        try:
            return _checked(json.loads(text), where)
        except (ValueError, RecursionError) as error:
            raise KnowledgeError(f"{where}: begins like JSON, but is none ({error})") from None
    names = {spelling(name): name for name in class_names}
    current = class_names[0] if len(class_names) == 1 else None
    knowledge: Knowledge = {}
    ignored: list[str] = []
    for line in text.splitlines():
        bare = line.strip()
        if not bare or bare.startswith("```"):
            continue
        if (heading := _heading(bare, names)) is not None:
            current = heading
        elif current is None:
            ignored.append(bare)
        elif sentence := _BULLET.sub("", bare).strip(_QUOTES + " "):
            knowledge.setdefault(current, []).append(sentence)
    if not knowledge:
        raise KnowledgeError(
            f"{where}: found no description; expected a line with the class's name (`dog:`) and "
            "under it one sentence per line"
        )
    if ignored:
        _log.warning(
            "%s: %s before the first class left out, e.g. %r; a class's name on a line of its own "
            "needs a colon, or --class",
            where,
            counted(len(ignored), "line"),
            ignored[0][:MAX_CHARACTERS],
        )
    return _checked(knowledge, where)


def add(knowledge: Knowledge, path: Path) -> Knowledge:
    """Add sentences to a file, which need not exist; those that it has are not repeated."""
    merged = read(path) if path.exists() else {}
    for name, sentences in knowledge.items():
        listed = merged.setdefault(name, [])
        listed += [sentence for sentence in sentences if sentence not in listed]
    write_text(path, json.dumps(merged, indent=1, ensure_ascii=False) + "\n")
    return merged


def prompt(names: Sequence[str], count: int = 20) -> str:
    """A question to a language model whose answer `parse` can read."""
    listed = "\n".join(f"- {name}" for name in names)
    return (
        f"For each class below write {count} short English sentences that describe what it looks "
        "like in a photograph: parts, shape, colour, material, texture, typical pose and what "
        "touches it. Begin with 'it has' or 'it is', do not use the class's name, and say nothing "
        "that cannot be seen. Some sentences should name what other things have, too (four legs, "
        "wheels, fur, a handle). Answer with each class's name on a line of its own followed by a "
        f"colon, then one sentence a line, and nothing else.\n\n{listed}\n"
    )


def _heading(line: str, names: Mapping[str, str]) -> str | None:
    if _BULLET.match(line) and not line.endswith(":"):
        return None
    bare = _BULLET.sub("", line)
    match = _HEADING.match(bare)
    if match is None:
        return None
    name = _BULLET.sub("", match["name"].strip())
    marked = bare.startswith(("#", "**")) or bare.endswith(":")
    if spelling(name) in names:
        return names[spelling(name)]
    return name if marked and len(name) <= 60 else None


def _checked(content: object, where: str) -> Knowledge:
    problems = []
    if not isinstance(content, dict) or not content:
        raise KnowledgeError(f"{where}: expected {{class: [sentences]}}")
    for name, sentences in content.items():
        if not isinstance(sentences, list) or not sentences:
            problems.append(f"{name}: expected a list of sentences")
            continue
        for sentence in sentences:
            if not isinstance(sentence, str) or not sentence.strip() or "{}" in sentence:
                problems.append(f"{name}: {sentence!r} is no sentence")
            elif len(sentence) > MAX_CHARACTERS:
                problems.append(
                    f"{name}: {sentence[:40]!r}… has {len(sentence)} of {MAX_CHARACTERS} letters"
                )
    if problems:
        raise KnowledgeError(f"{where}: cannot be used\n  " + "\n  ".join(problems))
    return {
        str(name): list(dict.fromkeys(" ".join(s.split()) for s in sentences))
        for name, sentences in content.items()
    }
