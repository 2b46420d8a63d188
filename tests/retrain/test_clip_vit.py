"""The segmenter on the image tower of the run's CLIP: its features, its start, its checkpoint."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.optim import build_optim_wrapper

from tests.retrain.conftest import Data, build_config, make_data
from tests.retrain.small_networks import CROP, clip_tower, facts, small
from tests.retrain.trainings import Killed, Result, run
from wsss.artifacts.checkpoint import load_checkpoint, save_checkpoint
from wsss.artifacts.errors import ArtifactError
from wsss.artifacts.provenance import Provenance
from wsss.artifacts.stage import STAGES
from wsss.clip.encoder import ClipEncoder
from wsss.clip.input import configured_clip
from wsss.clip.model_config import build_image_tower
from wsss.clip.position import resize_positions
from wsss.config.load import from_mapping
from wsss.config.model import Config
from wsss.retrain.networks.clip_vit import tapped_blocks
from wsss.retrain.optimisation import optimisation
from wsss.retrain.segmenter import Segmenter, load_segmenter

Configure = Callable[..., Config]
CLIP_VIT = {"model": "clip-vit", "init": "clip", "lr": 2e-3}
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "without a first norm": {"no_ln_pre": True},
    "with layer scale": {"ls_init_value": 0.1, "mlp_ratio": 2.0},
    "with fixed positions": {"pos_embed_type": "sin_cos_2d", "final_ln_after_pool": True},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(CROP, CROP), (40, 64)])
def test_features_are_those_of_the_frozen_encoder(kind: str, size: tuple[int, int]) -> None:
    tower = clip_tower(**KINDS[kind])
    torch.manual_seed(1)
    visual = build_image_tower(tower.architecture).eval()
    backbone = small("clip-vit", clip=tower).backbone
    backbone.start_from(visual)
    images = torch.randn(2, 3, *size)
    crop = (CROP // 8, CROP // 8)
    expected = ClipEncoder(visual).adapted(grid=crop).run(images, outputs_of=range(3)).outputs
    image, *maps = backbone(images)
    torch.testing.assert_close(image, images)
    assert tapped_blocks(3) == [1, 2, 3]
    for block, features in enumerate(maps):
        assert features.shape == (2, 32, size[0] // 8, size[1] // 8)
        tokens = features.flatten(2).transpose(1, 2)
        torch.testing.assert_close(tokens, expected[block][:, 1:], rtol=1e-4, atol=1e-5)


def test_blocks_are_spread_over_the_depth() -> None:
    assert tapped_blocks(12) == [4, 6, 8, 10, 12]
    assert tapped_blocks(24) == [8, 12, 16, 20, 24]
    assert tapped_blocks(1) == [1]


@pytest.mark.parametrize("relative", [0.0, 0.5])
def test_the_tower_has_its_own_rate_or_none(configure: Configure, relative: float) -> None:
    retrain = configure(model="clip-vit", clip_lr=relative, lr=1e-3).retrain
    model = small("clip-vit", frozen_clip=relative == 0).train()
    optimizer = build_optim_wrapper(model, optimisation(retrain)["optim_wrapper"]).optimizer
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    before = model.backbone.state_dict()["tower.positions"].clone()
    logits = model._forward(torch.randn(2, 3, CROP, CROP))
    logits.square().sum().backward()
    optimizer.step()
    for parameter in model.backbone.parameters():
        assert (parameter.grad is not None) == (relative > 0)
        assert relative == 0 or rates[id(parameter)] == pytest.approx(relative * 1e-3)
    assert torch.equal(model.backbone.state_dict()["tower.positions"], before) == (relative == 0)
    assert rates[id(model.decode_head.conv_seg.weight)] == 1e-3


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    return make_data(tmp_path_factory.mktemp("set") / "set")


@pytest.fixture(scope="module")
def trained(data: Data, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """The folder and the result of a training that nothing disturbed."""
    folder = tmp_path_factory.mktemp("trained")
    return folder, run(data, build_config(**CLIP_VIT), folder)


@pytest.mark.slow
def test_it_starts_from_the_runs_clip(data: Data, configure: Configure, tmp_path: Path) -> None:
    config = configure(**CLIP_VIT | {"iterations": 1, "warmup": 0, "lr": 1e-12})
    run(data, config, tmp_path)
    tensors, provenance = load_checkpoint(tmp_path / "segmenter.safetensors")
    clip = configured_clip(config.clip.model, config.clip.pretrained, None)
    visual = clip.model.get_submodule("visual").state_dict()
    table = resize_positions(visual["positional_embedding"], (12, 12), (6, 6))
    torch.testing.assert_close(tensors["backbone.tower.positions"], table)
    for part in ("attn.in_proj_weight", "mlp.c_fc.bias"):
        stored = tensors[f"backbone.tower.blocks.11.{part}"]
        torch.testing.assert_close(stored, visual[f"transformer.resblocks.11.{part}"])
    assert provenance.weights == {"clip": clip.digest}
    assert set(provenance.files) == {"clip.model", "clip.pretrained"}


@pytest.mark.slow
def test_another_clip_is_another_training(
    data: Data, configure: Configure, tmp_path: Path, trained: Any, kill_at: Any
) -> None:
    shutil.copytree(trained[0] / "work", tmp_path / "work")
    kill_at(0)  # no step may begin
    assert run(data, configure(**CLIP_VIT), tmp_path) == trained[1]
    other = configure(**CLIP_VIT)
    other = other.model_copy(
        update={"clip": other.clip.model_copy(update={"pretrained": "random"})}
    )
    with pytest.raises(Killed):
        run(data, other, tmp_path)


def test_the_checkpoint_is_all_that_prediction_needs(trained: Any) -> None:
    segmenter = load_segmenter(trained[0] / "segmenter.safetensors", "cpu")
    assert segmenter.facts.model == "clip-vit"
    photo = np.random.default_rng(0).integers(0, 256, (30, 50, 3), np.uint8)
    assert segmenter.probabilities(photo[None])["multi"].shape == (1, 4, 30, 50)


@pytest.mark.parametrize("stem", [True, False], ids=["stem", "no stem"])
def test_the_decoder_sees_the_image_through_its_stem_alone(stem: bool) -> None:
    model = small("clip-vit", clip_stem=stem).eval()
    images = torch.randn(2, 3, 40, 64)
    image, *maps = model.backbone(images)
    logits = model.decode_head((image, *maps))
    assert logits.shape[2:] == ((20, 32) if stem else (5, 8))
    other = model.decode_head((torch.zeros_like(image), *maps))
    assert torch.equal(logits, other) != stem


def test_without_a_stem_a_patch_is_labelled_by_its_own_tokens() -> None:
    head = small("clip-vit", clip_stem=False).eval().decode_head
    image, maps = torch.zeros(1, 3, 40, 64), torch.randn(3, 1, 32, 5, 8)
    before = head((image, *maps))
    maps[..., 2, 3] += 1
    changed = (head((image, *maps)) != before).any(dim=1)[0]
    assert changed.nonzero().tolist() == [[2, 3]]


def test_a_checkpoint_says_whether_there_is_a_stem(tmp_path: Path) -> None:
    network = small("clip-vit", clip_stem=False).eval()
    provenance = Provenance(stage="retrain", config={}, seed=0, code="", packages={})
    stored = facts("clip-vit", clip=clip_tower(), clip_stem=False).model_dump(mode="json")
    path = tmp_path / "segmenter.safetensors"
    save_checkpoint(path, network.state_dict(), provenance, stored)
    segmenter = load_segmenter(path, "cpu")
    photo = np.random.default_rng(0).integers(0, 256, (40, 64, 3), np.uint8)
    expected = Segmenter(network, segmenter.facts, torch.device("cpu"))
    torch.testing.assert_close(
        segmenter.probabilities(photo[None])["multi"], expected.probabilities(photo[None])["multi"]
    )


def test_a_checkpoint_of_an_impossible_tower_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "huge.safetensors"
    network = small("clip-vit")
    provenance = Provenance(stage="retrain", config={}, seed=0, code="", packages={})
    for vision, message in (({"width": 10**6}, "width"), ({"layers": "many"}, "layers")):
        tower = clip_tower(**vision)
        stored = facts("clip-vit", clip=tower).model_dump(mode="json")
        save_checkpoint(path, network.state_dict(), provenance, stored)
        with pytest.raises(ArtifactError, match=rf"(?s)huge\.safetensors: .*{message}"):
            load_segmenter(path, "cpu")


def test_only_clip_vit_reads_the_clip() -> None:
    def watched(model: str, pretrained: str) -> dict[str, Any]:
        init = "clip" if model == "clip-vit" else "random"
        retrain = {"model": model, "init": init}
        mapping = {"retrain": retrain, "clip": {"pretrained": pretrained}}
        return STAGES["retrain"].watched(from_mapping(mapping))

    assert watched("segformer-b0", "a") == watched("segformer-b0", "b")
    assert watched("clip-vit", "a") != watched("clip-vit", "b")
