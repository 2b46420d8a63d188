"""Fast tests that take most of the time of all fast tests: `make check` leaves them out.

The list beside this file is measured: `make medium` writes it again.
"""

import re
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

LIST = Path(__file__).with_suffix(".txt")
_SECONDS = 0.5
"""Of all cases of a function together, on a machine that needs five minutes for them."""
_DURATION = re.compile(r"^\s*([\d.]+)s (?:call|setup|teardown)\s+(\S+)", re.MULTILINE)


def medium_tests() -> frozenset[str]:
    """Functions, as pytest names them: file and name, without the values of a case."""
    return frozenset(LIST.read_text("utf-8").split())


def function_of(node_id: str) -> str:
    """The function of a case."""
    return node_id.partition("[")[0]


def slowest(durations: str) -> list[str]:
    """The functions that belong on the list.

    Args:
        durations: what ``pytest --durations=0`` printed.
    """
    seconds = Counter[str]()
    for taken, node_id in _DURATION.findall(durations):
        seconds[function_of(node_id)] += float(taken)
    return sorted(name for name, total in seconds.items() if total >= _SECONDS)


def write_list(lines: Iterable[str]) -> None:
    """Show what pytest prints, and write the list at its end."""
    text = []
    for line in lines:
        text.append(line)
        print(line, end="")
    if not (names := slowest("".join(text))):
        sys.exit(f"{LIST}: stays as it is, since pytest showed no durations")
    LIST.write_text("".join(f"{name}\n" for name in names), "utf-8")


if __name__ == "__main__":
    write_list(sys.stdin)
