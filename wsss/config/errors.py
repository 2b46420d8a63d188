"""Errors of the configuration, and what they say of a wrong value.

Stages import this module, so it imports no sections: these would enter the digest of their code.
"""

from __future__ import annotations

import datetime
import difflib
import re
from typing import Any

from wsss.errors import WsssError

_LONGEST_SHOWN = 200
NO_SECTION = ("dict_type", "model_type", "model_attributes_type")
# What YAML makes of words such as yes, off, ~, 007, 1.0e+3, 12:30 and 2024-01-01.
_READ_BY_YAML = (bool, int, float, type(None), datetime.date)

_WORDS = {
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "expected a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "expected a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "expected true or false"),
    **dict.fromkeys(("list_type", "tuple_type"), "expected a list, e.g. [a, b]"),
    **dict.fromkeys(NO_SECTION, "expected keys with values, e.g. {key: value}"),
    "string_type": "expected a text",
    "string_pattern_mismatch": (  # of the one pattern of the configuration, that of names
        "expected letters, digits, full stops, hyphens and underscores, first a letter or a digit"
    ),
}
"""What is expected, by pydantic's type of the error."""


class ConfigError(WsssError, ValueError):
    """The configuration is wrong; the message names each key, its value and what to do."""


def explain_value(item: Any, *, of_yaml: bool = True) -> str:
    """What is wrong with a value, and the value.

    Args:
        item: pydantic's description of the error.
        of_yaml: the value stands in a file, where words need quotation marks.
    """
    value = item["input"]
    if item["type"] in {"missing", "value_error"}:
        return str(item["msg"]).removeprefix("Value error, ")
    message = _expected(item)
    is_word = item["type"] in {"string_type", "literal_error"}
    if of_yaml and is_word and isinstance(value, _READ_BY_YAML):
        text = str(value) if isinstance(value, datetime.date) else repr(value)
        expected = "" if item["type"] == "string_type" else f"; {message}"
        return f"found {text}; put it in quotation marks{expected}"
    return f"{message} (found {shown(value)})"


def _expected(item: Any) -> str:
    """What pydantic expected, in plain words."""
    kind, message = str(item["type"]), str(item["msg"])
    if kind in _WORDS:
        return _WORDS[kind]
    if kind == "literal_error":
        choices = re.findall("'([^']*)'", item["ctx"]["expected"])
        text = item["input"] if isinstance(item["input"], str) else ""
        near = difflib.get_close_matches(text, choices, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        return f"expected {'one of ' * (len(choices) > 2)}{item['ctx']['expected']}{hint}"
    if kind.startswith(("greater_than", "less_than")):
        return message.replace("Input should be", "expected a number")
    message = message.replace("Input should be", "expected")
    return re.sub(r"^\w+ should have (at \w+ \d+ \w+).*", r"expected \1", message)


def shown(value: object) -> str:
    """A value in a message, cut where it is long."""
    text = repr(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]} …"
