"""Refiners on a pretended GPU: no devices are mixed, results are those of the CPU, few waits."""

import csv
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from tests.builders import shard_state
from tests.dino.models import SECTION as DINO
from tests.gpu.pretend import PretendGpu
from tests.gpu.steps import Step, counted_steps
from tests.refine.chain import Chain, cut_short
from wsss.artifacts.shard import Shard
from wsss.config.base import overlay
from wsss.refine.training.trainer import Trainer

TRAIN = {"iterations": 4, "batch": 2, "warmup": 1, "checkpoint_every": 2, "crop": 64}


class Case(NamedTuple):
    """A method: its sections of the configuration, and the most that a step may take."""

    sections: dict[str, Any]
    waits: int
    launches: int
    uploads: int
    """Only what follows from the batch is uploaded."""


METHODS = {
    "weclip": Case({"refine": {"weclip": {"width": 16, "rfm_start": 2}}}, 2, 600, 14),
    "excel": Case(
        {
            "refine": {"excel": {"width": 16, "lvc_start": 2, "self_training_start": 3}},
            "cams": {"source": "patch_text", "affinity": {"last_blocks": 6}},
        },
        *(2, 600, 14),
    ),
    "weakclip": Case({"refine": {"weakclip": {"width": 16, "channels": 16}}}, 5, 1421, 7),
    "weclip_plus": Case(
        {"refine": {"weclip_plus": {"width": 16, "self_training_start": 2}}, "dino": DINO},
        *(2, 752, 16),
    ),
}
"""The demo's CLIP has 12 blocks, as ViT-B/16 has."""
ON_GPU = {"compute": {"device": "cuda"}}
pytestmark = pytest.mark.usefixtures("one_thread")


def _chain(folder: Path, method: str, **sections: Any) -> Chain:
    small = {"refine": {"method": method, "train": TRAIN}, "infer": {"scales": [1.0, 0.75]}}
    whole = overlay(overlay(small, METHODS[method].sections), sections)
    return Chain(folder, whole.pop("refine"), train=2, val=1, **whole)


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["corrected", "published"])
@pytest.mark.parametrize("method", METHODS)
def test_results_are_those_of_the_cpu(tmp_path: Path, method: str, variant: str) -> None:
    small = {"keep_ratio": False, "input_size": 64} if method == "excel" else {}
    chain = _chain(tmp_path, method, variant=variant, clip=small)
    chain.seeds()
    expected = chain.train(chain.config(), tmp_path / "cpu")
    # Interruptions, and predictions in two jobs, know no variant.
    in_parts = variant == "corrected"
    with PretendGpu() as gpu, counted_steps(gpu) as steps:
        config = chain.config(**ON_GPU)
        if in_parts:
            with cut_short(Trainer, "_keep", lambda done: done.steps == 3):
                chain.train(config, tmp_path / "gpu")
            assert len(steps) == 3
        trained = chain.train(config, tmp_path / "gpu")
        assert len(steps) == 4 + in_parts  # the third was repeated
        on_gpu = _written(chain, config, trained, tmp_path / "gpu")
        apart, planes = tmp_path / "apart.h5", tmp_path / "apart.planes"
        if in_parts:
            chain.predict(config, trained, apart, (1, 1), planes)
    if in_parts:
        chain.predict(chain.config(), trained, apart, (1, 1), None, planes)
        assert shard_state(apart) == shard_state(on_gpu[1])
    _assert_close_losses(trained, expected)
    _assert_close(on_gpu, _written(chain, chain.config(), trained, tmp_path / "cpu"))
    _assert_within(steps[-1], *METHODS[method][1:])


@pytest.mark.slow
@pytest.mark.parametrize("method", ["weclip", "excel", "weclip_plus"])
def test_weights_of_the_encoder_in_bfloat16(tmp_path: Path, method: str) -> None:
    short = {"train": {"iterations": 3}}  # each phase of a training once
    chain = _chain(tmp_path, method, clip={"precision": "bfloat16"}, refine=short)
    with PretendGpu():
        config = chain.config(**ON_GPU)
        trained = chain.train(config, tmp_path / "gpu")
        scores, _ = _written(chain, config, trained, tmp_path / "gpu")
    with Shard(scores) as shard:
        for item in shard:
            assert np.isfinite(item.arrays["score"]).all()


@pytest.mark.slow
@pytest.mark.parametrize("method", ["weclip", "excel"])
@pytest.mark.parametrize("kind", ["joined", "dino"])
def test_a_factor_of_the_affinity_adds_no_wait(tmp_path: Path, method: str, kind: str) -> None:
    chain = _chain(tmp_path, method)
    factor = chain.config(cams={"affinity": {"kind": kind}}, dino=DINO, **ON_GPU)
    with PretendGpu() as gpu, counted_steps(gpu) as steps:
        chain.train(factor, tmp_path / "gpu")
    _, waits, launches, uploads = METHODS[method]
    _assert_within(steps[-1], waits, launches + (30 if kind == "joined" else 90), uploads)


def _written(chain: Chain, config: Any, checkpoint: Path, folder: Path) -> tuple[Path, Path]:
    """Scores and predictions of a checkpoint."""
    scores = chain.apply(config, checkpoint, folder / "scores.h5")
    return scores, chain.predict(config, checkpoint, folder / "predictions.h5")


def _assert_close_losses(actual: Path, expected: Path) -> None:
    """Adam turns differences of rounding into steps where a gradient is 0; the loss sees none."""
    first, second = (_losses(path.parent / "loss.csv") for path in (actual, expected))
    np.testing.assert_allclose(first, second, rtol=2e-3)


def _losses(path: Path) -> list[float]:
    with path.open() as stream:
        return [float(row["loss"]) for row in csv.DictReader(stream)]


def _assert_close(actual: tuple[Path, Path], expected: tuple[Path, Path]) -> None:
    """Scores within half precision, labels alike on all but a few pixels."""
    for first, second in zip(actual, expected, strict=True):
        with Shard(first) as one, Shard(second) as other:
            assert one.ids == other.ids
            for item in one:
                for name, array in other.read(item.id).arrays.items():
                    if array.dtype == np.uint8:
                        assert (item.arrays[name] == array).mean() > 0.999
                    else:
                        np.testing.assert_allclose(item.arrays[name], array, atol=4e-3)


def _assert_within(step: Step, waits: int, launches: int, uploads: int) -> None:
    """Of a step that prepares nothing for those that follow."""
    assert sum(step.waits.values()) <= waits, step.waits
    assert sum(step.launches.values()) <= launches, step.launches
    assert sum(step.uploads.values()) <= uploads, step.uploads
