"""A small run for the tests of this room, and one tiny chain for each module."""

from pathlib import Path

import pytest

from tests.refine.cam_run import CamRun
from tests.refine.chain import Chain
from wsss.data.manifest import Sample

pytest.register_assert_rewrite("tests.refine.every_method")


@pytest.fixture(scope="module")
def chain(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Chain:
    """Manifest and CAMs for the sections of the configuration that the module names `CHAIN`."""
    return Chain(tmp_path_factory.mktemp("chain"), **request.module.CHAIN)


@pytest.fixture(scope="module")
def checkpoint(chain: Chain) -> Path:
    return chain.train(chain.config(), chain.folder / "trained")


@pytest.fixture(scope="module")
def scores(chain: Chain, checkpoint: Path) -> Path:
    return chain.apply(chain.config(), checkpoint, chain.folder / "scores.h5")


@pytest.fixture
def run(tmp_path: Path) -> CamRun:
    """Five training images, the last without tags, and one held-out image of a known id."""
    samples = [
        Sample(f"sub folder/bild ü {n}" if n == 1 else f"image{n}", "train", Path(f"{n}.jpg"),
               40 + n, 32, f"{n:064x}", tuple(range(3))[: (n + 1) % 4 if n < 4 else 0])
        for n in range(5)
    ]  # fmt: skip
    samples.append(Sample("image0", "val", Path("v.jpg"), 64, 48, "f" * 64, (2,)))
    cam_run = CamRun(tmp_path, samples)
    cam_run.write_manifest()
    return cam_run
