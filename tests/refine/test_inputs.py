"""CAM shards as a refiner reads them: what is refused, and why."""

from dataclasses import replace

import numpy as np
import pytest

from tests.refine.cam_run import CamRun
from wsss.artifacts.errors import ArtifactError
from wsss.refine.inputs import CamSet


def test_maps_are_those_after_the_affinity_where_there_is_one(run: CamRun) -> None:
    for affinity in (True, False):
        items = [run.cam(sample, affinity=affinity) for sample in run.samples[:5]]
        with CamSet([run.write_cams("cams", items)], run.samples[:5]) as cams:
            assert cams.ids == [sample.id for sample in run.samples[:5]]
            for image, item in zip(map(cams.read, cams.ids), items, strict=True):
                maps = item.arrays["cam_affinity" if affinity else "cam"]
                np.testing.assert_array_equal(image.maps, maps)
                np.testing.assert_array_equal(image.initial, item.arrays["cam"])


def test_shards_that_do_not_fit_are_refused(run: CamRun) -> None:
    samples = run.samples[:5]
    shard = run.write_cams("1-of-1", [run.cam(sample) for sample in samples])
    stray = run.write_cams("stray", [replace(run.cam(samples[0]), id="elsewhere")])
    with pytest.raises(ArtifactError, match=r"stray.h5: holds 'elsewhere'"):
        CamSet([stray], samples)
    with pytest.raises(ArtifactError, match="every shard once"):
        CamSet([shard, shard], samples)
    other = run.write_cams("other", [run.cam(samples[0])], kind="masks")
    with pytest.raises(ArtifactError, match="expected 'cams'"):
        CamSet([other], samples)
    held_out = run.write_cams("val", [run.cam(run.samples[5])])  # the same id in another split
    with CamSet([held_out], samples) as cams, pytest.raises(ArtifactError, match="manifest says"):
        cams.read("image0")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"cam": np.full((1, 4, 5), np.nan, np.float16)}, "NaN"),
        ({"cam": np.full((1, 4, 5), 1.5, np.float16)}, "expected 0 … 1"),
        ({"cam": np.zeros((2, 4, 5), np.float16)}, "shape"),
        ({"map": np.zeros((1, 4, 5), np.float16)}, "shape None"),
    ],
)
def test_damaged_cams_are_refused(run: CamRun, arrays: dict[str, np.ndarray], message: str) -> None:
    bad = run.write_cams("bad", [replace(run.cam(run.samples[0]), arrays=arrays)])
    with CamSet([bad], run.samples[:5]) as cams, pytest.raises(ArtifactError, match=message):
        cams.read("image0")
