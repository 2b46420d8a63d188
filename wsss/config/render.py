"""Generate the annotated defaults and the JSON schema from the models."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping
from typing import Any

import yaml

from wsss.config.base import AUTO, Section, takes_auto
from wsss.config.model import Config

_WIDTH = 110
_PHOTOS: Mapping[str, Any] = {"name": "photos", "data": {"kind": "folder"}}
_NO_KIND = ("default", "published", "corrected", AUTO)
_HEADER = """\
Every key with its default for photographs, explained above its line (`wsss config default`).
The embedded demo (data.kind: demo) has smaller values: DEMO in wsss/config/model.py.
"""


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
