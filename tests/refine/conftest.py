"""A small run for the tests of this room."""

from pathlib import Path

import pytest

from tests.refine.cam_run import CamRun
from wsss.config.load import from_mapping
from wsss.data.manifest import Sample


@pytest.fixture
def run(tmp_path: Path) -> CamRun:
    """Five training images, the last without tags, and one held-out image of a known id."""
    samples = [
        Sample(f"sub folder/bild ü {n}" if n == 1 else f"image{n}", "train", Path(f"{n}.jpg"),
               40 + n, 32, f"{n:064x}", tuple(range(3))[: (n + 1) % 4 if n < 4 else 0])
        for n in range(5)
    ]  # fmt: skip
    samples.append(Sample("image0", "val", Path("v.jpg"), 64, 48, "f" * 64, (2,)))
    made = CamRun(tmp_path, from_mapping({"compute": {"workers": 1}}), samples)
    made.write_manifest()
    return made
