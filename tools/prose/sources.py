"""Where the texts come from: pages, report captions, field descriptions and command help."""

from __future__ import annotations

import ast
import inspect
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import typer
from markdown_it import MarkdownIt
from markdown_it.token import Token

from tools.prose.rules import Passage
from wsss.cli.app import app
from wsss.config.base import Section

ROOT = Path(__file__).parents[2]
_PATTERNS = ("README.md", "CONTRIBUTING.md", "docs/**/*.md", "config/*.md", "workflow/report/*.rst")
_PROSE_FENCES = re.compile(r"^\{(?:note|tip|warning|important|admonition|dropdown|tab-item)\}")
# Parts that markdown-it does not know, replaced without moving a line.
_UNREAD = (
    re.compile(r"\A---\n.*?\n---\n", re.DOTALL),  # front matter
    re.compile(r"^[ \t]*\$\$.*?\$\$[^\n]*$", re.DOTALL | re.MULTILINE),
    re.compile(r"^[ \t]*:::.*$", re.MULTILINE),
    re.compile(r"<!--.*?-->", re.DOTALL),
)
_JINJA = re.compile(r"\{\{.*?\}\}|\{%.*?%\}", re.DOTALL)
_MATH = re.compile(r"\$[^$]+\$")


def pages() -> list[Path]:
    """Every page that a person writes; generated ones are checked where their texts come from."""
    return sorted(
        path
        for pattern in _PATTERNS
        for path in ROOT.glob(pattern)
        if "generated" not in path.parts and "_build" not in path.parts
    )


def read_page(path: Path) -> list[Passage]:
    """The paragraphs and list items of a Markdown page or of a report's caption."""
    text = path.read_text("utf-8")
    for pattern in _UNREAD:
        text = pattern.sub(lambda match: "\n" * match[0].count("\n"), text)
    return list(_passages(_JINJA.sub("X", text), 1))


def _passages(text: str, first_line: int) -> Iterator[Passage]:
    previous = ""
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        line = first_line + (token.map[0] if token.map else 0)
        if token.type == "fence" and _PROSE_FENCES.match(token.info):
            yield from _passages(token.content, line + 1)
        elif token.type == "inline" and previous == "paragraph_open":
            yield Passage(line, _MATH.sub("X", _text(token.children or ())))
        previous = token.type


def _text(tokens: Sequence[Token]) -> str:
    parts = {
        "code_inline": "X",
        "softbreak": "\n",
        "hardbreak": "\n",
        "image": "",
        "html_inline": "",
    }
    return "".join(parts.get(token.type, token.content) for token in tokens)


def configuration() -> dict[Path, list[Passage]]:
    """Descriptions of every key, methods' options included, by the module that has them."""
    texts: dict[Path, list[Passage]] = defaultdict(list)
    for section in dict.fromkeys(_sections(Section)):
        path = Path(inspect.getfile(section))
        lines = _field_lines(section)
        for name, field in section.model_fields.items():
            if name in lines and field.description:
                texts[path].append(Passage(lines[name], field.description))
    return texts


def _sections(base: type[Section]) -> Iterator[type[Section]]:
    """Everything that the command line imports: all of it."""
    for child in base.__subclasses__():
        if child.__module__.startswith("wsss."):
            yield child
        yield from _sections(child)


def _field_lines(section: type[Section]) -> dict[str, int]:
    """Line of each field that the class itself declares."""
    tree = ast.parse(Path(inspect.getfile(section)).read_text("utf-8"))
    return {
        statement.target.id: statement.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and node.name == section.__name__
        for statement in node.body
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)
    }


def command_help() -> dict[Path, list[Passage]]:
    """Help of every command and option, by the module of the command."""
    texts: dict[Path, list[Passage]] = defaultdict(list)
    for command in _commands(typer.main.get_command(app)):
        callback = command.callback
        path = Path(inspect.getfile(inspect.unwrap(callback) if callback else type(app)))
        line = inspect.getsourcelines(inspect.unwrap(callback))[1] if callback else 1
        options = [getattr(parameter, "help", None) for parameter in command.params]
        for text in [*(command.help or "").split("\n\n"), *options]:
            if text:
                texts[path].append(Passage(line, _MATH.sub("X", re.sub(r"`[^`]*`", "X", text))))
    return {path: passages for path, passages in texts.items() if path.is_relative_to(ROOT)}


def _commands(command: Any) -> Iterator[Any]:
    yield command
    for child in getattr(command, "commands", {}).values():  # of a group
        yield from _commands(child)
