"""The demo data set, drawn once for all tests of the room."""

from pathlib import Path

import pytest

from wsss.demo.dataset import generate


@pytest.fixture(scope="session")
def demo_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A demo folder with few images."""
    root = tmp_path_factory.mktemp("demo") / "data"
    generate(root, train=12, val=8)
    return root
