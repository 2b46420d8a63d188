"""A shard of predictions in one job or in two: the same label maps, keys and provenance."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tests.builders import provenance, shard_state
from tests.machines import no_new_bytes
from wsss.artifacts.digest import digest_file
from wsss.artifacts.errors import ArtifactError, WriteError
from wsss.artifacts.shard import Shard
from wsss.compute.pool import WorkerError
from wsss.config.labels import CrfConfig
from wsss.data.errors import ImageError
from wsss.data.manifest import Sample
from wsss.labels.planes import MOST_LABELS
from wsss.labels.prediction import Candidates, Prediction, candidates
from wsss.labels.prediction_shards import PredictionJob, finish, write_predictions

SIZE = (40, 56)
PIXELS = 10_000


class Scene:
    """Photos of two halves, and what a network says of them."""

    def __init__(self, folder: Path, *, which: Any = "candidates", half: bool = True) -> None:
        self.folder, self.asked = folder, list[str]()
        self.photos: dict[str, np.ndarray] = {}
        self.predictions: dict[str, Prediction] = {}
        self.samples: list[Sample] = []
        for number in range(3):
            random = np.random.default_rng(number)
            photo = random.integers(0, 60, (*SIZE, 3), np.uint8)
            photo[:, SIZE[1] // 2 :] += 180
            name, path = f"photo {number}", folder / f"{number}.png"
            cv2.imwrite(str(path), photo[:, :, ::-1])
            protocols = {}
            for protocol, labels in (("single", 4), ("multi", 6)):
                logits = random.normal(size=(labels, *SIZE)).astype(np.float32)
                logits[0, :, : SIZE[1] // 2] += 3
                logits[2, :, SIZE[1] // 2 :] += 3
                logits[3] -= 20  # below what the CRF tells from zero
                probs = np.exp(logits) / np.exp(logits).sum(axis=0)
                if half:
                    probs = probs.astype(np.float16).astype(np.float32)
                protocols[protocol] = candidates(probs, which)
            self.predictions[name] = Prediction(photo, protocols)
            self.samples.append(Sample(name, "val", path, SIZE[1], SIZE[0], digest_file(path), ()))

    def predict(self, some: list[Sample]) -> list[tuple[str, Prediction]]:
        self.asked += [sample.id for sample in some]
        return [(sample.id, self.predictions[sample.id]) for sample in some]

    def job(self, name: str, crf: CrfConfig | None, **fields: Any) -> PredictionJob:
        attested = provenance("predict", **fields)
        return PredictionJob(self.folder / name, self.samples, attested, crf, 1, "")


def _both(scene: Scene, crf: CrfConfig | None, **options: Any) -> Path:
    """Write a shard in one job and in two, and compare; gives the file between them."""
    write_predictions(scene.job("one.h5", crf), scene.predict, key="k", **options)
    planes = scene.folder / "two.planes"
    write_predictions(scene.job("two.h5", crf), scene.predict, key="k", planes_to=planes, **options)
    assert not (scene.folder / "two.h5").exists()
    finish(scene.job("two.h5", crf), planes, max_pixels=PIXELS)
    assert shard_state(scene.folder / "one.h5") == shard_state(scene.folder / "two.h5")
    return planes


def _arrays(planes: Path) -> dict[str, np.ndarray]:
    with Shard(planes, kind="planes") as shard:
        return dict(shard.read(shard.ids[0]).arrays)


CRF = CrfConfig(iterations=2)


@pytest.mark.parametrize("which", ["all", "candidates", "winners"])
@pytest.mark.parametrize("unary", ["float32", "float16"])
def test_one_job_or_two_write_the_same(tmp_path: Path, which: Any, unary: Any) -> None:
    """Planes from a GPU take two bytes per pixel and label."""
    scene = Scene(tmp_path, which=which)
    arrays = _arrays(_both(scene, CRF.model_copy(update={"unary": unary})))
    assert set(arrays) == {"single", "single_planes", "multi", "multi_planes"}
    assert arrays["single_planes"].dtype == np.float16
    assert len(arrays["multi_planes"]) == len(scene.predictions["photo 0"].protocols["multi"].ids)
    with Shard(tmp_path / "two.h5") as shard:
        assert any((i.arrays["multi"] != i.arrays["multi_crf"]).any() for i in shard)


def test_planes_that_half_precision_would_change_stay_as_they_are(tmp_path: Path) -> None:
    """Those of a network on a CPU."""
    assert _arrays(_both(Scene(tmp_path, half=False), CRF))["multi_planes"].dtype == np.float32


def test_planes_have_the_size_of_the_crf(tmp_path: Path) -> None:
    crf = CRF.model_copy(update={"long_side": 28})
    arrays = _arrays(_both(Scene(tmp_path), crf))
    assert arrays["multi_planes"].shape[1:] == (20, 28)
    assert arrays["multi"].shape == SIZE


def test_what_the_crf_takes_for_zero_is_stored_as_zero(tmp_path: Path) -> None:
    planes = _arrays(_both(Scene(tmp_path, which="all"), CRF))["multi_planes"]
    assert (planes[3] == 0).mean() > 0.9
    assert planes.max() <= 1


@pytest.mark.parametrize(
    ("crf", "options"), [(None, {}), (CRF, {"labels": MOST_LABELS + 1})], ids=["none", "many"]
)
def test_label_maps_are_handed_over_where_no_crf_is_left(
    tmp_path: Path, crf: CrfConfig | None, options: dict[str, int]
) -> None:
    """With very many labels the planes would take too much disk."""
    arrays = _arrays(_both(Scene(tmp_path), crf, **options))
    names = {"single", "multi"} | ({"single_crf", "multi_crf"} if crf else set())
    assert set(arrays) == names


def test_items_of_an_earlier_run_are_not_predicted_again(tmp_path: Path) -> None:
    scene, planes = Scene(tmp_path), tmp_path / "x.planes"
    job = scene.job("x.h5", CRF)
    write_predictions(job, scene.predict, key="k", planes_to=planes)
    finish(job, planes, max_pixels=PIXELS)
    expected = shard_state(job.out)
    assert scene.asked == list(scene.predictions)
    for path in (job.out, planes):
        path.unlink()
    write_predictions(job, scene.predict, key="k", planes_to=planes)
    assert scene.asked == list(scene.predictions)
    assert not _arrays(planes)
    assert not list(tmp_path.glob(".cache/*.planes"))  # they would stay on the disk
    finish(job, planes, max_pixels=PIXELS)
    assert shard_state(job.out) == expected
    for path in (job.out, tmp_path / ".cache/x.h5"):
        path.unlink()
    with pytest.raises(ArtifactError, match=r"x\.planes: 'photo 0' was to be copied from the ca"):
        finish(job, planes, max_pixels=PIXELS)


@pytest.mark.parametrize(
    "change",
    [
        lambda scene: scene.job("x.h5", CRF, weights={"segmenter": "b"}),
        lambda scene: scene.job("x.h5", CRF, config={"masks.crf": {"iterations": 9}}),
        lambda scene: scene.job("x.h5", CRF, code="other"),
    ],
)
def test_planes_of_another_job_are_refused(
    tmp_path: Path, change: Callable[[Scene], PredictionJob]
) -> None:
    scene, planes = Scene(tmp_path), tmp_path / "x.planes"
    fields = {"weights": {"segmenter": "a"}, "config": {"masks.crf": {"iterations": 2}}}
    write_predictions(scene.job("x.h5", CRF, **fields), scene.predict, key="k", planes_to=planes)
    finish(scene.job("y.h5", CRF, **fields), planes, max_pixels=PIXELS)
    with pytest.raises(ArtifactError, match=r"x\.planes: was made for other images, settings"):
        finish(change(scene), planes, max_pixels=PIXELS)
    fewer = scene.job("x.h5", CRF, **fields)
    object.__setattr__(fewer, "samples", scene.samples[:2])
    with pytest.raises(ArtifactError, match=r"x\.planes: was made for other images, settings"):
        finish(fewer, planes, max_pixels=PIXELS)


def test_the_precision_of_the_other_device_is_no_other_setting(tmp_path: Path) -> None:
    scene, planes = Scene(tmp_path), tmp_path / "x.planes"
    there = scene.job("x.h5", CRF, config={"compute.precision": "tf32"}, device="cuda")
    write_predictions(there, scene.predict, key="k", planes_to=planes)
    finish(scene.job("x.h5", CRF), planes, max_pixels=PIXELS)
    with Shard(tmp_path / "x.h5") as shard:
        assert shard.provenance == there.provenance


def test_nan_and_other_photos_are_refused(tmp_path: Path) -> None:
    scene, planes = Scene(tmp_path), tmp_path / "x.planes"
    job = scene.job("x.h5", CRF)
    protocol = scene.predictions["photo 1"].protocols["multi"]
    damaged = protocol.probabilities.copy()
    damaged[0, 0, 0] = np.nan
    broken = {"multi": Candidates(protocol.labels, protocol.ids, damaged)}
    sound = scene.predictions["photo 1"]
    scene.predictions["photo 1"] = Prediction(sound.image, broken)
    write_predictions(job, scene.predict, key="k", planes_to=planes)
    with pytest.raises(WorkerError, match="'photo 1': the CRF was given probabilities that are Na"):
        finish(job, planes, max_pixels=PIXELS)
    scene.predictions["photo 1"] = sound
    write_predictions(job, scene.predict, key="k", planes_to=planes)
    cv2.imwrite(str(tmp_path / "2.png"), np.zeros((*SIZE, 3), np.uint8))
    with pytest.raises(ImageError, match=r"2\.png"):
        finish(job, planes, max_pixels=PIXELS)
    assert not job.out.exists()
    assert not list(tmp_path.glob("**/*tmp*"))


def test_a_full_disk_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    scene, planes = Scene(tmp_path), tmp_path / "x.planes"
    with no_new_bytes(), pytest.raises(WriteError, match=r"x\.planes: cannot be written"):
        write_predictions(scene.job("x.h5", CRF), scene.predict, key="k", planes_to=planes)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.png", "1.png", "2.png"]
