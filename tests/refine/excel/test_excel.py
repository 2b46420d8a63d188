"""ExCEL from photos to scores and predictions, on a few scenes of the demo with its small CLIP."""

from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.dino.models import SECTION
from tests.refine.chain import Chain
from tests.refine.every_method import TRAIN, MethodTests, assert_normalised_cams, option
from wsss.artifacts.checkpoint import load_checkpoint
from wsss.artifacts.shard import Shard
from wsss.config.errors import ConfigError
from wsss.config.model import Config
from wsss.labels.ignore import IGNORED
from wsss.refine.excel.method import Excel
from wsss.refine.excel.relation import encode, relation, shift
from wsss.refine.inference import MultiScaleInference
from wsss.refine.training.crops import CropBatch

EXCEL = {"width": 16, "lvc_start": 2, "self_training_start": 3}
CHAIN = {
    "refine": {"method": "excel", "train": TRAIN, "excel": EXCEL},
    "cams": {"source": "patch_text", "affinity": {"last_blocks": 6}},
}
BOTH = {"segmentation", "affinity"}


class TestExcel(MethodTests):
    trained = ("fusion", "decoder")
    losses = ("segmentation", "affinity")
    inference = (
        {},
        {"clip": {"keep_ratio": False, "input_size": 64}, "infer": {"scales": [1.0, 0.7, 1.5]}},
    )
    step = EXCEL["lvc_start"]
    resized = option("excel", width=32)
    options = (
        (option("excel", crop_visibility="image", lvc_start=9), BOTH),
        (option("excel", ignore_band=None), BOTH),
        (option("excel", features="aliased"), BOTH),
        (option("excel", relation_dropout="on"), BOTH),
        (option("excel", relation_mean="batch"), BOTH),
        (option("excel", lvc_start=9), BOTH),
        (option("excel", self_training_start=0), {"affinity"}),
        ({"cams": {"affinity": {"enabled": False}}} | option("excel", lvc_start=9), BOTH),
        ({"cams": {"patch_text": {"relation": "vv"}}}, BOTH),
        ({"cams": {"patch_text": {"heads": "each"}}}, BOTH),
        ({"cams": {"patch_text": {"tse": {"form": "topk"}}}}, BOTH),
        ({"cams": {"affinity": {"kind": "joined"}}}, BOTH),
        ({"cams": {"affinity": {"kind": "distribution"}}} | option("excel", lvc_start=9), BOTH),
        ({"cams": {"affinity": {"kind": "feature"}}}, BOTH),
        ({"cams": {"affinity": {"kind": "dino"}}, "dino": SECTION}, BOTH),
    )


def test_every_block_is_fused(checkpoint: Path) -> None:
    assert load_checkpoint(checkpoint)[0]["fusion.first_weight"].shape[0] == 12


@pytest.mark.parametrize("scores", ["cam", "static_cam"])
@pytest.mark.parametrize("variant", ["corrected", "published"])
def test_scores_of_the_calibrated_cam(
    chain: Chain, checkpoint: Path, variant: str, scores: str, tmp_path: Path
) -> None:
    clip = {"input_size": 64} if variant == "published" else {}
    config = chain.config(variant=variant, infer={"scores": scores}, clip=clip)
    assert_normalised_cams(chain.apply(config, checkpoint, tmp_path / "cam.h5"))


def test_nothing_but_scale_1_as_it_is(chain: Chain, checkpoint: Path, tmp_path: Path) -> None:
    config = chain.config(infer={"mirror_first": False, "scales": [1.0]})
    with Shard(chain.predict(config, checkpoint, tmp_path / "p.h5")) as shard:
        for item in shard:
            np.testing.assert_array_equal(item.arrays["single"], item.arrays["multi"])


def test_the_share_of_the_size_is_for_the_mean_alone() -> None:
    """Eq. 23: the arg max of scale 1 is that of logits at the photo's size."""
    torch.manual_seed(0)
    images, weight = torch.randn(1, 3, 64, 96), torch.randn(5, 3, 16, 16)

    def view(scale: float) -> torch.Tensor:
        return F.interpolate(images, scale_factor=scale, mode="bilinear")

    def probabilities(share: float) -> tuple[torch.Tensor, torch.Tensor]:
        inference = MultiScaleInference(
            lambda batch: F.conv2d(batch, weight, stride=16),
            scales=[1.0, 0.5],
            average="logits",
            grid="output",
            share=share,
            patch=(16, 16),
        )
        return inference.probabilities(view, (61, 95))

    (single, mean), (whole, whole_mean) = probabilities(0.1), probabilities(1.0)
    assert torch.equal(single, whole)
    assert not torch.allclose(mean, whole_mean, atol=1e-3)


def _parts(chain: Chain, config: Config) -> tuple[Excel, CropBatch]:
    refiner = cast(Excel, chain.refiner(config))
    return refiner, next(chain.stream(config, refiner).batches(0))


@pytest.mark.slow
def test_it_takes_any_cam(tmp_path: Path) -> None:
    refine = {
        "method": "excel",
        "train": TRAIN | {"iterations": 2},
        "excel": EXCEL | {"crop_visibility": "image", "lvc_start": 1},
    }
    chain = Chain(tmp_path, refine, cams={"source": "grad_cam"})
    assert chain.train(chain.config(), tmp_path / "trained").exists()


def test_relation_of_an_image_depends_on_it_alone(chain: Chain) -> None:
    torch.manual_seed(0)
    fused = torch.randn(3, 8, 4, 4) + torch.randn(3, 8, 1, 1)
    settings = chain.config().refine.excel
    together, alone = relation(fused, settings), relation(fused[:1], settings)
    torch.testing.assert_close(together[:1], alone)
    published = chain.config(variant="published").refine.excel
    assert not torch.allclose(relation(fused, published)[:1], relation(fused[:1], published))


def test_shift_leaves_out_what_is_less_alike_than_the_mean() -> None:
    shifted = shift(torch.tensor([[[1.0, -0.1, 0.0], [0.5, 0.5, -3.0], [-1.0, -1.0, 2.0]]]))
    expected = [[0.7311, 0.0, 0.2689], [0.5, 0.5, 0.0], [0.0, 0.0, 1.0]]
    torch.testing.assert_close(shifted[0], torch.tensor(expected), rtol=1e-3, atol=1e-4)


def test_published_features_are_aliased(chain: Chain) -> None:
    """The calibrated stream, then states between attention and MLP, then the last block."""
    refiner, batch = _parts(chain, chain.config())
    scores = refiner.patch_text
    late = range(scores.first + 1, 12)
    run = scores.encoder.run(batch.images, outputs_of=range(12), post_attention_of=late)
    clean, aliased = (encode(scores, batch.images, form) for form in ("clean", "aliased"))
    for block in range(12):
        expected = run.outputs[block]
        torch.testing.assert_close(clean.features[block], expected[:, 1:])
        if block == scores.first - 1:
            expected = aliased.stream
        elif scores.first <= block < 11:
            expected = run.post_attention[block + 1]
        torch.testing.assert_close(aliased.features[block], expected[:, 1:])


def test_dynamic_cam_differs_and_teaches_from_its_start(chain: Chain) -> None:
    refiner, batch = _parts(chain, chain.config())
    features = refiner.encode(batch.images, dynamic=True)
    fused = torch.randn(len(batch.images), 16, *features.grid)
    related = relation(fused, refiner.options)
    static, dynamic = refiner.tokens(features), refiner.tokens(features, related)
    assert torch.equal(static[:, 0], dynamic[:, 0])  # the class token is the encoder's
    assert not torch.allclose(static[:, 1:], dynamic[:, 1:])
    before = refiner.pseudo_labels(batch, features, None)
    assert not torch.equal(before, refiner.pseudo_labels(batch, features, related))


def test_padding_and_what_is_not_shown_teach_nothing(chain: Chain) -> None:
    small = chain.config(refine={"train": {"scale_range": [0.3, 0.6]}})
    refiner, batch = _parts(chain, small)
    assert not batch.valid.all()
    features = refiner.encode(batch.images, dynamic=False)
    labels = refiner.pseudo_labels(batch, features, None)
    assert (labels[~batch.valid] == IGNORED).all()
    assert (labels[batch.valid] != IGNORED).any()
    hidden = replace(batch, maps=torch.zeros_like(batch.maps))
    labels = refiner.pseudo_labels(hidden, features, None)
    for image, index in zip(batch.image_index, batch.classes, strict=True):
        assert not (labels[image] == index + 1).any()


def test_what_does_not_fit_is_refused(chain: Chain, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="relation is none"):
        chain.config(cams={"patch_text": {"relation": "none"}})
    with pytest.raises(ConfigError, match="crop_visibility to image"):
        chain.config(cams={"source": "external", "external": {"path": "seeds"}})
    many = chain.config(cams={"patch_text": {"blocks": 13}})
    with pytest.raises(ValueError, match="blocks is 13: the encoder has 12"):
        chain.train(many, tmp_path)
