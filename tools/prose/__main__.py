"""`make prose`: hold README, docs, help and descriptions to short, plain sentences."""

from __future__ import annotations

import sys
from pathlib import Path

from tools.prose.rules import complaints
from tools.prose.sources import ROOT, command_help, configuration, pages, read_page


def main() -> int:
    """Check the pages that are named, or every text of the project; print each complaint."""
    if sys.argv[1:]:
        texts = {path: read_page(path) for path in map(Path, sys.argv[1:])}
    else:
        texts = {path: read_page(path) for path in pages()} | configuration() | command_help()
    count = 0
    for path, passages in sorted(texts.items()):
        shown = path.relative_to(ROOT) if path.is_absolute() and path.is_relative_to(ROOT) else path
        for complaint in complaints(passages):
            print(f"{shown}:{complaint.line}: {complaint.text}")
            count += 1
    if count:
        print(f"{count} complaints; tools/prose/rules.py says what is checked", file=sys.stderr)
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main())
