"""Generate the annotated defaults, the JSON schema and the reference from the models."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml

from wsss.config.base import AUTO, Section, takes_auto
from wsss.config.model import DEMO, Config

_WIDTH = 110
_PHOTOS: Mapping[str, Any] = {"name": "photos", "data": {"kind": "folder"}}
_NO_KIND = ("default", "published", "corrected", AUTO)
_HEADER = """\
Every key with its default for photographs, explained above its line (`wsss config default`).
The embedded demo (data.kind: demo) has smaller values: DEMO in wsss/config/model.py.
"""
_KINDS: dict[Any, str] = {
    str: "text", int: "whole number", float: "number", bool: "`true` · `false`", NoneType: "`null`",
}  # fmt: skip


def default_yaml() -> str:
    """Every key with its default for photographs, annotated, as text."""
    lines = _comment(_HEADER, 0)
    lines += _section_lines(Config.model_validate(_PHOTOS), _PHOTOS, 0)
    return "\n".join(lines) + "\n"


def json_schema() -> str:
    """The JSON schema of what a user may write, ``auto`` included, as text."""
    schema = Config.model_json_schema()
    for section in [schema, *schema["$defs"].values()]:
        for name, field in section["properties"].items():
            if "published" in field or AUTO in field:
                section["properties"][name] = _or_auto(field)
            elif "$ref" in field:  # the section itself says the defaults
                field.pop("default", None)
    return json.dumps(schema, indent=2, sort_keys=True) + "\n"


def reference_markdown() -> str:
    """The reference of all keys: a table per section, as Markdown."""
    return "\n".join(_section_tables(Config.model_validate(_PHOTOS), DEMO, ""))


def _section_tables(section: Section, demo: Mapping[str, Any], prefix: str) -> list[str]:
    """A table of the keys of a section, then the sections inside it."""
    rows, inner = [], []
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, Section):
            inner += [f"({prefix}{name})=", f"## {prefix}{name}", ""]
            inner += [_escaped((type(value).__doc__ or "").strip().split("\n\n")[0]), ""]
            inner += _section_tables(value, demo.get(name, {}), f"{prefix}{name}.")
            continue
        shown = f"`{_scalar(AUTO if takes_auto(field) else value)}`"
        if name in demo:
            shown += f" (demo: `{_scalar(demo[name])}`)"
        text = _escaped(field.description or "")
        choices = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
        allowed = " · ".join(f"`{choice}`" for choice in choices) or _kind_text(field.annotation)
        rows.append(f"| `{name}` | {shown} | {allowed} | {text} |")
    table = ["| key | default | values | meaning |", "|---|---|---|---|", *rows, ""]
    return [*(table if rows else []), *inner]


def _escaped(text: str) -> str:
    """A text in one line of Markdown, without what would be mathematics, tags or cells."""
    return re.sub(r"([$<|*_\[\]])", r"\\\1", " ".join(text.split()))


def _kind_text(annotation: Any) -> str:
    """A type as a reader of YAML calls it: text, whole number, number, list, mapping …"""
    arguments = get_args(annotation)
    origin = get_origin(annotation)
    if origin is Annotated:
        return _kind_text(arguments[0])
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(map(_kind_text, arguments)))
    if origin is Literal:
        return " · ".join(f"`{choice}`" for choice in arguments)
    if origin is tuple:
        return "list of " + str(len(arguments))
    if origin is list:
        return "list"
    if origin is dict:
        return "mapping"
    return _KINDS.get(annotation, "section")


def _or_auto(field: dict[str, Any]) -> dict[str, Any]:
    about = {key: field[key] for key in ("title", "description")}
    kind = {key: value for key, value in field.items() if key not in {*about, *_NO_KIND}}
    return {**about, "default": AUTO, "anyOf": [{"const": AUTO}, *kind.pop("anyOf", [kind])]}


def _section_lines(section: Section, given: Mapping[str, Any], depth: int) -> list[str]:
    lines: list[str] = []
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, Section):
            text = (type(value).__doc__ or "").strip().split("\n\n")[0]
            lines += ["", *_comment(text, depth), f"{'  ' * depth}{name}:"]
            lines += _section_lines(value, given.get(name, {}), depth + 1)
        else:
            lines += _comment(field.description or "", depth)
            shown = AUTO if takes_auto(field) and name not in given else value
            lines.append(f"{'  ' * depth}{name}: {_scalar(shown)}")
    return lines


def _comment(text: str, depth: int) -> list[str]:
    indent = "  " * depth + "# "
    flat = [
        line
        for part in text.strip().splitlines()
        for line in textwrap.wrap(part, _WIDTH - len(indent))
    ]
    return [indent + line for line in flat]


def _scalar(value: Any) -> str:
    dumped = yaml.safe_dump(
        list(value) if isinstance(value, tuple) else value, default_flow_style=True, width=10_000
    )
    return dumped.removesuffix("\n").removesuffix("\n...")
