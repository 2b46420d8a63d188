"""The demo data set, drawn once for all tests of the room."""

from pathlib import Path

import pytest

from wsss.demo import generate


@pytest.fixture(scope="session")
def demo_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A demo folder with few training images and all of the held-out ones."""
    root = tmp_path_factory.mktemp("demo") / "data"
    generate(root, train=12, val=80)
    return root
