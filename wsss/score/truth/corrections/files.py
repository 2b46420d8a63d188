"""Files of other programs, read with care: JSON of a bounded size."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from wsss.errors import raise_unless_about
from wsss.score.truth.errors import TruthError

_MOST = 4 * 2**30  # bytes


def read_json(path: Path, kind: type, expected: str) -> Any:
    """The content of a JSON file.

    Args:
        expected: what it should be, for messages.

    Raises:
        TruthError: it is missing or something else.
    """
    try:
        if path.stat().st_size > _MOST:
            raise ValueError(f"has more than {_MOST} bytes")
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise_unless_about(path, error)
        raise TruthError(f"{path}: cannot be read ({error}); expected {expected}") from None
    if not isinstance(content, kind):
        raise TruthError(f"{path}: holds a {type(content).__name__}; expected {expected}")
    return content
