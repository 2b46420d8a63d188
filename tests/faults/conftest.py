"""The chain of all kinds, run once undisturbed, and the server that runs commands."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from .chain import CHAIN, build, digests, output_folder
from .forks import Forks


@dataclass
class Undisturbed:
    """The outputs of the chain without a fault."""

    base: Path
    forks: Forks
    seconds: dict[str, float]
    expected: dict[str, dict[str, str]]
    """Digests of the outputs of each kind."""


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Undisturbed]:
    base = tmp_path_factory.mktemp("chain")
    with Forks(base) as forks:
        seconds = build(base, forks)
        expected = {kind.name: digests(kind, output_folder(base, kind)) for kind in CHAIN}
        yield Undisturbed(base, forks, seconds, expected)
