"""A small run for the tests of this room."""

from pathlib import Path

import pytest

from tests.masks.mask_run import MaskRun, make_run


@pytest.fixture
def run(tmp_path: Path) -> MaskRun:
    return make_run(tmp_path)
