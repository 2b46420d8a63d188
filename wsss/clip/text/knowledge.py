"""The knowledge base: sentences on what the classes look like, built in and of users' own.

It is JSON, ``{class: [sentences]}``. Sentences say what can be seen ("it has four legs …") and do
not name the class. The built-in files were written for this project.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from wsss.artifacts.atomic import write_text
from wsss.config.safe_yaml import read_bytes
from wsss.data.datasets.classes import ClassList, spelling
from wsss.data.datasets.words import COCO_ALIASES
from wsss.errors import WsssError

Knowledge = dict[str, list[str]]

BUILT_IN = Path(__file__).parent / "descriptions"
_MOST_BYTES = 2**26
LONGEST = 300
"""Characters of a sentence; the text tower reads 77 tokens."""

_HEADING = re.compile(r"^(#+\s*|\*\*)?(?P<name>[^#*:]+?)(\*\*)?:?(\*\*)?\s*$")
_BULLET = re.compile(r"^(?:[-*•–]|\(?\d+[.)])\s+")
_QUOTES = "\"'“”‘’,"


class KnowledgeError(WsssError, ValueError):
    """Descriptions cannot be used; the message says which and what to do."""


def descriptions(classes: ClassList, own: Path | None = None) -> Knowledge:
    """Sentences of every class of a list, in its order.

    Args:
        classes: the list; the demo has a file of its own, all others share one, in which VOC's
            names stand for COCO's.
        own: a file laid over the built-in one.

    Raises:
        KnowledgeError: the file cannot be used, or a class has no sentence.
    """
    shipped = read(built_in(classes.name))
    known = {spelling(name): sentences for name, sentences in shipped.items()}
    for alias, name in COCO_ALIASES.items():
        if spelling(name) in known:
            known[spelling(alias)] = known[spelling(name)]
    if own is not None:
        known |= {spelling(name): sentences for name, sentences in read(own).items()}
    missing = [name for name in classes.names if spelling(name) not in known]
    if missing:
        raise KnowledgeError(
            f"no description of {', '.join(missing)}: write some and name the file in "
            "cams.patch_text.tse.knowledge (`wsss knowledge prompt` and `wsss knowledge add` "
            "help), or set cams.patch_text.tse.form to off"
        )
    return {name: known[spelling(name)] for name in classes.names}


def built_in(classes_of: str) -> Path:
    """The file that comes with the package: the demo's own, or that of all others.

    Args:
        classes_of: name of the class list.
    """
    return BUILT_IN / ("demo.json" if classes_of == "demo" else "objects.json")


def read(path: Path) -> Knowledge:
    """Read a knowledge base.

    Raises:
        KnowledgeError: it is missing, no JSON of the form, or a sentence is empty or too long.
    """
    try:
        content = json.loads(read_bytes(path, _MOST_BYTES))
    except OSError as error:
        raise KnowledgeError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise KnowledgeError(
            f"{path}: is no JSON ({error}); expected {{class: [sentences]}}"
        ) from None
    return _checked(content, str(path))


def parse(text: str, where: str, *, known: Sequence[str] = ()) -> Knowledge:
    """Read descriptions from what people or language models write.

    JSON is taken as it is. Otherwise a class is a line of its own (``dog``, ``dog:``, ``## dog``,
    ``**Dog**``), and what follows are its sentences, one a line, with bullets, numbers and quotes
    taken off. Text before the first class is passed over.

    Args:
        text: the text.
        where: where it came from, for messages.
        known: class names that are headings even without a mark; with one name alone, text without
            a heading is about that.

    Raises:
        KnowledgeError: nothing was found, or a sentence is too long.
    """
    if text.lstrip().startswith("{"):
        try:
            return _checked(json.loads(text), where)
        except (ValueError, RecursionError) as error:
            raise KnowledgeError(f"{where}: begins like JSON, but is none ({error})") from None
    names = {spelling(name): name for name in known}
    current = known[0] if len(known) == 1 else None
    found: Knowledge = {}
    for line in text.splitlines():
        bare = line.strip()
        if not bare or bare.startswith("```"):
            continue
        if (heading := _heading(bare, names)) is not None:
            current = heading
        elif current is not None and (sentence := _BULLET.sub("", bare).strip(_QUOTES + " ")):
            found.setdefault(current, []).append(sentence)
    if not found:
        raise KnowledgeError(
            f"{where}: found no description; expected a line with the class's name (`dog:`) and "
            "under it one sentence a line"
        )
    return _checked(found, where)


def add(found: Knowledge, path: Path) -> Knowledge:
    """Add sentences to a file, which is made where there is none; known ones are not repeated."""
    kept = read(path) if path.exists() else {}
    for name, sentences in found.items():
        mine = kept.setdefault(name, [])
        mine += [sentence for sentence in sentences if sentence not in mine]
    write_text(path, json.dumps(kept, indent=1, ensure_ascii=False) + "\n")
    return kept


def prompt(names: Sequence[str], count: int = 20) -> str:
    """What to ask a language model, so that `parse` reads its answer."""
    listed = "\n".join(f"- {name}" for name in names)
    return (
        f"For each class below write {count} short English sentences that describe what it looks "
        "like in a photograph: parts, shape, colour, material, texture, typical pose and what "
        "touches it. Begin with 'it has' or 'it is', do not use the class's name, and say nothing "
        "that cannot be seen. Some sentences should name what other things have, too (four legs, "
        "wheels, fur, a handle). Answer with each class's name on a line of its own followed by a "
        f"colon, then one sentence a line, and nothing else.\n\n{listed}\n"
    )


def _heading(line: str, known: Mapping[str, str]) -> str | None:
    if _BULLET.match(line) and not line.endswith(":"):
        return None
    bare = _BULLET.sub("", line)
    match = _HEADING.match(bare)
    if match is None:
        return None
    name = _BULLET.sub("", match["name"].strip())
    marked = bare.startswith(("#", "**")) or bare.endswith(":")
    if spelling(name) in known:
        return known[spelling(name)]
    return name if marked and len(name) <= 60 else None


def _checked(content: object, where: str) -> Knowledge:
    wrong = []
    if not isinstance(content, dict) or not content:
        raise KnowledgeError(f"{where}: expected {{class: [sentences]}}")
    for name, sentences in content.items():
        if not isinstance(sentences, list) or not sentences:
            wrong.append(f"{name}: expected a list of sentences")
            continue
        for sentence in sentences:
            if not isinstance(sentence, str) or not sentence.strip() or "{}" in sentence:
                wrong.append(f"{name}: {sentence!r} is no sentence")
            elif len(sentence) > LONGEST:
                wrong.append(f"{name}: {sentence[:40]!r}… has {len(sentence)} of {LONGEST} letters")
    if wrong:
        raise KnowledgeError(f"{where}: cannot be used\n  " + "\n  ".join(wrong))
    return {
        str(name): list(dict.fromkeys(" ".join(s.split()) for s in sentences))
        for name, sentences in content.items()
    }
