"""WeCLIP+ from photos to scores and predictions, on scenes of the demo with a random tiny DINOv2.

What a random encoder shows is that everything runs, resumes and repeats; not that it helps.
"""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch.nn import functional as F

from tests.dino.models import SECTION, TINY
from tests.refine.chain import Chain
from tests.refine.every_method import TRAIN, MethodTests, assert_normalised_cams, option
from wsss.artifacts.checkpoint import load_checkpoint
from wsss.artifacts.errors import ArtifactError
from wsss.config.base import overlay
from wsss.config.errors import ConfigError
from wsss.config.model import Config
from wsss.labels.ignore import IGNORED
from wsss.refine.blocks.grad_cam_labels import GradCamRefiner
from wsss.refine.blocks.losses import balanced_cross_entropy
from wsss.refine.load import from_checkpoint, load_state
from wsss.refine.training.crops import CropBatch
from wsss.refine.weclip_plus.head import BothDecoded
from wsss.refine.weclip_plus.losses import cross_losses, dice_loss
from wsss.refine.weclip_plus.method import WeClipPlus

PLUS = {"width": 16, "self_training_start": 2}
CHAIN = {"refine": {"method": "weclip_plus", "train": TRAIN, "weclip_plus": PLUS}, "dino": SECTION}
PADDED = {"refine": {"train": {"scale_range": [0.3, 0.6]}}}
"""Every crop is padded."""
CAM = {"segmentation", "affinity", "dice"}
"""What follows from the labels of the CAMs."""
OWN = {"segmentation", "dice"}


class TestWeClipPlus(MethodTests):
    trained = ("clip", "dino", "decoder")
    losses = ("segmentation", "affinity", "cross", "dice")
    inference = ({}, {"infer": {"grid": "floored"}}, {"infer": {"long_side": 72}})
    acting = overlay(PADDED, option("weclip_plus", self_training_confidence=0.115))
    step = 2
    resized = option("weclip_plus", width=32)
    options = (
        (option("weclip_plus", crop_visibility="image"), CAM),
        (option("weclip_plus", ignore_band=None), CAM),
        (option("weclip_plus", padding="labelled"), CAM | {"cross"}),
        (option("weclip_plus", affinity="raw"), CAM),
        (option("weclip_plus", block_distance="signed", rfm_blocks=11), CAM),
        (option("weclip_plus", rfm_blocks=2), CAM),
        (option("weclip_plus", cam_block="skipped"), CAM),
        ({"clip": {"logit_scale": 5.0}}, CAM),
        (option("weclip_plus", affinity_features="clip"), CAM),
        (option("weclip_plus", source_gate="none"), CAM),
        (option("weclip_plus", affinity_radius=1), {"affinity"}),
        (option("weclip_plus", dice_labels="all"), {"dice"}),
        ({"cams": {"affinity": {"kind": "joined"}}}, CAM),
        ({"cams": {"affinity": {"kind": "dino"}}}, CAM),
        (option("weclip_plus", self_training_start=None), OWN),
        (option("weclip_plus", self_training_confidence=0.12), OWN),
        (option("weclip_plus", own_labels_among="all"), OWN),
        (option("weclip_plus", affinity_weight=1.0), set()),
        (option("weclip_plus", cross_weight=1.0), set()),
        (option("weclip_plus", dice_weight=0.0), set()),
    )


@pytest.mark.parametrize("block", ["last", "skipped"])
def test_scores_of_the_refined_cam(
    chain: Chain, checkpoint: Path, block: str, tmp_path: Path
) -> None:
    changes = {"infer": {"scores": "cam"}, **option("weclip_plus", cam_block=block)}
    assert_normalised_cams(chain.apply(chain.config(**changes), checkpoint, tmp_path / "cam.h5"))


def test_both_encoders_are_in_the_provenance_and_the_cost(checkpoint: Path) -> None:
    _, provenance = load_checkpoint(checkpoint)
    assert set(provenance.weights) == {"clip", "dino"}
    assert provenance.config["dino"]["model"] == str(TINY)
    assert set(provenance.files) >= {"dino.model", "clip.model"}
    cost = json.loads((checkpoint.parent / "efficiency.json").read_text())
    refiner = from_checkpoint(checkpoint, device="cpu")
    assert isinstance(refiner, WeClipPlus)
    trained = sum(parameter.numel() for parameter in refiner.trained.parameters())
    frozen = refiner.encoder.parameter_count + refiner.dino.parameter_count
    assert cost["trained_parameters"] == trained
    assert cost["parameters"] == trained + frozen


def test_another_dino_is_refused(chain: Chain, checkpoint: Path, tmp_path: Path) -> None:
    sizes = tmp_path / "sizes.json"
    sizes.write_text(json.dumps(json.loads(TINY.read_text()) | {"num_heads": 4}))
    other = chain.config(dino={"model": str(sizes)})
    with pytest.raises(ArtifactError, match="was trained with DINO weights of sha256"):
        load_state(chain.refiner(other), checkpoint, "weclip_plus")


def test_nothing_trains_in_the_encoders(chain: Chain) -> None:
    refiner = cast(WeClipPlus, chain.refiner(chain.config()))
    refiner.train_mode(True)
    tensors = [block.in_proj.weight for block in (*refiner.encoder.blocks, *refiner.dino.blocks)]
    before = [tensor.clone() for tensor in tensors]
    optimizer = torch.optim.AdamW(refiner.trained.parameters(), lr=0.1)
    for step, batch in enumerate(
        itertools.islice(chain.stream(chain.config(), refiner).batches(0), 3)
    ):
        refiner.loss(step, batch)["loss"].backward()
        optimizer.step()
    assert not any(tensor.requires_grad for tensor in tensors)
    assert all(torch.equal(*pair) for pair in zip(tensors, before, strict=True))


def test_two_equal_heads_teach_each_other_what_one_predicts() -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 4, 5, 6)
    features = torch.randn(2, 3, 5, 6)
    decoded = BothDecoded(features, features, logits, logits)
    assert torch.equal(decoded.logits, logits)
    full = decoded.at((20, 24))
    assert torch.equal(full.both, full.clip)
    own = balanced_cross_entropy(full.both, full.both.argmax(1))
    torch.testing.assert_close(sum(cross_losses(full.clip, full.dino)), 2 * own)


def test_cross_losses_are_finite_where_a_head_predicts_one_side_alone() -> None:
    """The release has NaN there."""
    nothing = torch.zeros(1, 3, 4, 4)
    nothing[:, 0] = 5.0
    everything = torch.zeros(1, 3, 4, 4, requires_grad=True)
    losses = cross_losses(everything, nothing)
    assert all(torch.isfinite(loss) for loss in losses)
    torch.testing.assert_close(losses[0], torch.tensor(0.5 * torch.log(torch.tensor(3.0)).item()))
    ignored = cross_losses(everything, nothing, torch.zeros(1, 4, 4, dtype=torch.bool))
    assert all(loss == 0 for loss in ignored)


@pytest.mark.parametrize("labels", [2, 5, 21])
def test_dice_of_a_perfect_prediction(labels: int) -> None:
    torch.manual_seed(0)
    truth = torch.randint(0, 2, (2, 8, 8), dtype=torch.uint8)
    truth[0, :2] = IGNORED
    perfect = F.one_hot(truth.clamp_max(1).long(), labels).permute(0, 3, 1, 2).float()
    assert dice_loss(perfect, truth, "all").item() == pytest.approx(1 - 2 / labels, abs=1e-6)
    assert dice_loss(perfect, truth, "present").item() == pytest.approx(0, abs=1e-6)
    nothing = torch.full_like(truth, IGNORED)
    assert dice_loss(perfect, nothing, "present") == 0


def test_dice_by_hand() -> None:
    torch.manual_seed(1)
    probs = torch.randn(2, 3, 4, 4).softmax(1)
    truth = torch.randint(0, 2, (2, 4, 4), dtype=torch.uint8)
    truth[1, 0] = IGNORED
    ratios = []
    for label in range(3):
        p, y = probs[:, label][truth != IGNORED], (truth == label)[truth != IGNORED].float()
        ratios.append(float(2 * (p * y).sum() / (p.sum() + y.sum() + 1e-7)))
    every, present = 1 - sum(ratios) / 3, 1 - sum(ratios[:2]) / 2
    assert dice_loss(probs, truth, "all").item() == pytest.approx(every, rel=1e-5)
    assert dice_loss(probs, truth, "present").item() == pytest.approx(present, rel=1e-5)


def _crops(chain: Chain, config: Config, count: int = 3) -> Iterator[tuple[WeClipPlus, CropBatch]]:
    refiner = chain.refiner(config)
    for batch in itertools.islice(chain.stream(config, refiner).batches(0), count):
        yield cast(WeClipPlus, refiner), batch


def test_a_constant_belief_is_no_gate(chain: Chain) -> None:
    """Then RFM+ is the refinement module of WeCLIP without boxes."""
    config = chain.config(cams={"affinity": {"box_threshold": None}})
    for refiner, batch in _crops(chain, config):
        features = refiner.encode(batch.images, attention_blocks=6, last_block=True)
        decoded = refiner.decode(features)
        affinity = refiner.affinity(refiner.fused(decoded))
        flat = torch.zeros_like(decoded.logits)
        sources = refiner.sources(flat, batch.image_index, batch.classes)
        assert sources is not None
        torch.testing.assert_close(sources, torch.full_like(sources, 1 / flat.shape[1]))
        labels = [
            GradCamRefiner.labels_from_cams(refiner, batch, features.clip, affinity, gate)
            for gate in (sources, None)
        ]
        assert torch.equal(*labels)


def test_the_gate_is_the_network_s_probability_of_each_tag(chain: Chain) -> None:
    for refiner, batch in _crops(chain, chain.config(), 1):
        logits = refiner.logits(batch.images)
        sources = refiner.sources(logits, batch.image_index, batch.classes)
        assert sources is not None
        rows = zip(batch.image_index.tolist(), batch.classes.tolist(), strict=True)
        for source, (image, label) in zip(sources, rows, strict=True):
            torch.testing.assert_close(source, logits[image].softmax(0)[label + 1])


def test_the_affinity_learns_labels_from_before_the_network_s_own(
    chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    def spied(self: WeClipPlus, batch: Any, full: Any, affinity: Any, *labels: Any) -> Any:
        seen.append(labels)
        return {"loss": affinity.sum()}

    monkeypatch.setattr(WeClipPlus, "losses_of", spied)
    config = chain.config(**option("weclip_plus", self_training_confidence=0.0))
    for refiner, batch in _crops(chain, config, 1):
        refiner.train_mode(False)
        refiner.loss(1, batch)
        refiner.loss(2, batch)
    (early, early_pairs), (late, late_pairs) = seen
    assert torch.equal(early, early_pairs)
    assert torch.equal(early_pairs, late_pairs)
    assert not torch.equal(late, late_pairs)


@pytest.mark.parametrize("among", ["all", "tags"])
def test_own_labels(chain: Chain, among: str) -> None:
    """Where no label but a tag may be given, a confident absent class replaces nothing."""
    changes = overlay(PADDED, option("weclip_plus", own_labels_among=among))
    for refiner, batch in _crops(chain, chain.config(**changes)):
        labels = torch.full(batch.valid.shape, IGNORED, dtype=torch.uint8)
        count, rows = refiner.setup.classes.label_count, batch.tags
        for label in range(count):
            probs = torch.full((len(labels), count, *labels.shape[1:]), 0.1 / (count - 1))
            probs[:, label] = 0.9
            own = refiner.own_labels(2, batch, probs, labels)
            for image, tags in enumerate(rows):
                may = bool(tags) and (among == "all" or label == 0 or label - 1 in tags)
                inside = own[image][batch.valid[image]]
                assert (inside == (label if may else IGNORED)).all()
                assert (own[image][~batch.valid[image]] == IGNORED).all()
            assert torch.equal(refiner.own_labels(1, batch, probs, labels), labels)
            unsure = refiner.own_labels(2, batch, probs / 0.9 * 0.75, labels)
            assert torch.equal(unsure, labels)


def test_an_image_without_tags_teaches_nothing(chain: Chain) -> None:
    packed = ("image_index", "classes", "probabilities", "initial", "maps")
    for refiner, batch in _crops(chain, chain.config(variant="published"), 1):
        rows = batch.image_index != 0
        bare = CropBatch(**vars(batch) | {name: getattr(batch, name)[rows] for name in packed})
        labels = refiner.supervision(2, bare)
        assert (labels[0] == IGNORED).all()
        assert (labels[1] != IGNORED).any()


def test_whole_images_reach_dino_and_whole_patches_clip(chain: Chain) -> None:
    """CLIP's patch has 8 pixels here, DINOv2's 14."""
    refiner = cast(WeClipPlus, chain.refiner(chain.config()))
    features = refiner.encode(torch.randn(1, 3, 71, 85))
    assert features.clip.grid == (8, 10)
    assert features.dino.grid == (5, 6)
    assert refiner.logits(torch.randn(1, 3, 71, 85)).shape[2:] == (8, 10)


def test_what_does_not_fit_is_refused(chain: Chain) -> None:
    with pytest.raises(ConfigError, match="crop_visibility to image"):
        chain.config(
            variant="published", cams={"source": "external", "external": {"path": "seeds"}}
        )
    with pytest.raises(ConfigError, match="static_cam is for excel"):
        chain.config(infer={"scores": "static_cam"})
    with pytest.raises(ValueError, match="there is no DINOv2 'vit_small_patch14'"):
        chain.refiner(chain.config(dino={"model": "vit_small_patch14", "pretrained": "lvd142m"}))
