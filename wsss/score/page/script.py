"""Data of a page inside its script."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def script_json(content: Mapping[str, Any]) -> str:
    r"""JSON for a script of an HTML page; names in it may hold anything.

    Markup that would end the script, or hide the rest of the page, begins with ``<``, which stands
    as ``\u003c``.
    """
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")
