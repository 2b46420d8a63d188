"""What refiners take from encoders of every family; which of them WeakCLIP can train on."""

from pathlib import Path

import pytest
import torch

from tests.clip.families import DEPTH, EVA, FAMILIES, SIGLIP, small_clip
from tests.dino.models import SECTION
from wsss.clip.encoder import ClipEncoder
from wsss.clip.errors import UnsupportedEncoderError
from wsss.clip.input import EncoderInput
from wsss.config.base import fill_variant
from wsss.config.clip import ClipConfig
from wsss.config.load import from_mapping
from wsss.data.datasets.classes import folder_classes
from wsss.refine.blocks.frozen import encode
from wsss.refine.load import build_refiner, load_encoders
from wsss.refine.weakclip.network import WeakClipNetwork
from wsss.refine.weakclip.options import WeakClipOptions
from wsss.refine.weclip_plus.method import WeClipPlus


@pytest.mark.parametrize("name", FAMILIES)
def test_features_and_attention_are_of_patches_alone(tmp_path: Path, name: str) -> None:
    if name in SIGLIP:
        pytest.importorskip("transformers")
    clip = small_clip(tmp_path, name)
    encoder = ClipEncoder(clip.model.get_submodule("visual"))
    rows, columns = 3, 5
    images = torch.randn(2, 3, rows * encoder.patch[0], columns * encoder.patch[1])
    seen = encode(encoder, images, attention_blocks=4, last_block=True)
    without = encode(encoder, images, attention_blocks=4)
    assert seen.grid == (rows, columns)
    assert seen.features.shape == (DEPTH - 1, 2, 15, encoder.width)
    assert seen.attention is not None
    assert without.attention is not None
    assert seen.attention.shape == (2, 4, 15, 15)
    torch.testing.assert_close(seen.attention, without.attention, rtol=1e-4, atol=1e-5)
    sums = seen.attention.sum(-1)
    if encoder.has_class_token:
        assert (sums < 1).all()  # the rest goes to the class token
    else:
        torch.testing.assert_close(sums, torch.ones_like(sums))


def network(
    folder: Path, name: str, variant: str = "corrected", **settings: object
) -> WeakClipNetwork:
    clip = small_clip(folder, name)
    encoder = ClipEncoder(clip.model.get_submodule("visual"))
    sizes = {"width": 16, "heads": 2, "depth": 1, "channels": 32, **settings}
    options = WeakClipOptions(**fill_variant(WeakClipOptions, sizes, variant))
    return WeakClipNetwork(clip, encoder, ["background", "cat"], options, 4 * encoder.patch[0])


@pytest.mark.parametrize("name", ["ViT-L-14", EVA[0], EVA[3]])
def test_weakclip_learns_over_frozen_towers(tmp_path: Path, name: str) -> None:
    built = network(tmp_path, name)
    assert built._out_indices == [2, 3, 4, 6]  # a third, a half, two thirds and all of six
    side = 4 * built._encoder.patch[0]
    seen = built.encode(torch.randn(1, 3, side, side))
    _, logits = built.head(seen, built.texts())
    assert torch.isfinite(logits).all()
    logits.square().mean().backward()
    assert built.head.prompt.contexts.grad is not None


@pytest.mark.parametrize("variant", ["corrected", "published"])
def test_more_blocks_than_there_are(tmp_path: Path, variant: str) -> None:
    with pytest.raises(ValueError, match=r"out_indices is \[2, 3, 4, 7\], but the encoder has 6"):
        network(tmp_path, "ViT-L-14", variant, out_indices=[2, 3, 4, 7])


def test_towers_that_cannot_be_trained_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    with pytest.raises(UnsupportedEncoderError, match="only open_clip's VisionTransformer"):
        network(tmp_path, EVA[0], "published")
    with pytest.raises(UnsupportedEncoderError, match="the text tower is TextTransformer"):
        network(tmp_path, SIGLIP[0])


@pytest.mark.parametrize("name", ["ViT-L-14", EVA[0], SIGLIP[0]])
def test_weclip_plus_over_every_family(tmp_path: Path, name: str) -> None:
    """SigLIP has no patches in the space of the texts, so one affinity is refused with it."""
    if name in SIGLIP:
        pytest.importorskip("transformers")
    clip = small_clip(tmp_path, name)
    inputs = EncoderInput(ClipConfig(long_side=None), clip=clip, device="cpu")
    side = 4 * inputs.encoder.patch[0]

    def built(**affinity: object) -> WeClipPlus:
        refine = {"method": "weclip_plus", "train": {"crop": side}, "weclip_plus": {"width": 16}}
        config = from_mapping(
            {"refine": refine, "dino": SECTION, "cams": {"affinity": affinity}, "clip": {}}
        )
        sections, dino = (config.refine, config.cams), {"dino": config.dino}
        encoders = load_encoders(*sections, dino, None, device="cpu")
        refiner = build_refiner(
            inputs,
            folder_classes(["cat", "dog"]),
            clip=config.clip,
            cams=config.cams,
            refine=config.refine,
            prompts={},
            encoders=encoders,
        )
        assert isinstance(refiner, WeClipPlus)
        return refiner

    refiner = built(kind="joined", joined_with="feature")
    images, tags = torch.randn(2, 3, side, side), ([0], [0, 1])
    rows = (torch.tensor([0, 1, 1]), torch.tensor([0, 0, 1]))
    features = refiner.encode(images, attention_blocks=3, last_block=True, projected=True)
    decoded = refiner.decode(features)
    initial = refiner.grad_cams(features.clip, tags).scaled()
    affinity = refiner.affinity(refiner.fused(decoded))
    sources = refiner.sources(decoded.logits, *rows)
    maps = refiner.refined(features.clip, initial, rows[0], affinity, sources)
    assert maps.shape == (3, 4, 4)
    assert maps.isfinite().all()
    assert (maps - initial).abs().max() > 0.05
    if name in SIGLIP:
        with pytest.raises(UnsupportedEncoderError, match="kind distribution"):
            built(kind="joined")
    else:
        built(kind="joined")
