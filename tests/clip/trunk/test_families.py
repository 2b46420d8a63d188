"""Every family of image encoders equals open_clip's own pass; others are refused at once."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from tests.clip.families import DEPTH, EVA, FAMILIES, PLAIN, SIGLIP, small_clip
from wsss.cams.grad_cam import grad_cam
from wsss.clip.encoder import ClipEncoder
from wsss.clip.errors import ClipLoadError, UnsupportedEncoderError
from wsss.clip.images import CLIP_MEAN, CLIP_STD
from wsss.clip.load import LoadedClip, load_clip
from wsss.clip.text.embeddings import TextBank, text_bank
from wsss.clip.trunk.check import check_encoder

_CLOSE = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture(scope="module", params=FAMILIES)
def clip(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LoadedClip:
    if request.param in SIGLIP:
        pytest.importorskip("transformers")
    return small_clip(tmp_path_factory.mktemp("clip"), request.param)


def encoder_of(clip: LoadedClip) -> ClipEncoder:
    return ClipEncoder(clip.model.get_submodule("visual"), logit_scale=clip.logit_scale)


def native(clip: LoadedClip, count: int = 2) -> torch.Tensor:
    return torch.randn(
        count, 3, clip.image_size, clip.image_size, generator=torch.Generator().manual_seed(2)
    )


def test_image_and_text_embeddings_are_those_of_open_clip(clip: LoadedClip) -> None:
    model: Any = clip.model
    images = native(clip)
    expected = F.normalize(model.encode_image(images), dim=-1)
    actual = F.normalize(encoder_of(clip).encode_image(images), dim=-1)
    torch.testing.assert_close(actual, expected, **_CLOSE)
    assert (expected[0] - expected[1]).abs().max() > 0.01
    bank = text_bank(clip, ["cat", "dog"], ["sky"], ["a clean origami {}."])
    tokens = clip.tokenize(["a clean origami cat.", "a clean origami dog."])
    texts = F.normalize(model.encode_text(tokens), dim=-1)
    torch.testing.assert_close(bank.classes, texts, **_CLOSE)


def test_grad_cam_equals_autograd_through_the_model(clip: LoadedClip) -> None:
    """The gradient of each class's margin through open_clip's own modules, class by class."""
    encoder, images = encoder_of(clip), native(clip)
    generator = torch.Generator().manual_seed(3)
    texts = F.normalize(torch.randn(7, clip.embed_dim, generator=generator), dim=-1)
    bank, classes = TextBank(texts[:5], texts[5:]), [[0, 3, 4], [2]]
    with torch.inference_mode():  # as the stage runs
        actual = grad_cam(encoder, images, classes, bank)
    expected = []
    for image, tags in zip(images, classes, strict=True):
        normed, feature = _normed_and_feature(clip.model, image)
        logits = encoder.logit_scale * F.normalize(feature, dim=-1) @ texts.T
        for tag in tags:
            others = [k for k in (*tags, 5, 6) if k != tag]
            score = logits[0, tag] - logits[0, others].logsumexp(0)
            (slope,) = torch.autograd.grad(score, normed, retain_graph=True)
            patches = slice(-16, None)
            expected.append((normed[0, patches] @ slope[0, patches].mean(0)).detach())
    expected_maps = torch.stack(expected).unflatten(1, (4, 4))
    largest = expected_maps.abs().amax((1, 2), keepdim=True)
    assert largest.min() > 1e-6
    torch.testing.assert_close(actual.maps / largest, expected_maps / largest, rtol=1e-4, atol=1e-4)


def _normed_and_feature(model: Any, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Output of the last block's first norm, and the feature that Grad-CAM scores, with a graph."""
    visual, leaves = model.visual, []
    timm = hasattr(visual, "trunk")
    block = visual.trunk.blocks[-1] if timm else visual.transformer.resblocks[-1]
    norm = block.norm1 if timm else block.ln_1

    def as_leaf(_: Any, __: Any, output: torch.Tensor) -> torch.Tensor:
        leaves.append(output.detach().requires_grad_())
        return leaves[0]

    hook = norm.register_forward_hook(as_leaf)
    with torch.enable_grad():
        if timm and visual.trunk.global_pool == "map":
            feature = visual(image[None])
        elif timm:
            tokens = visual.trunk.forward_features(image[None])
            feature = visual.trunk.head(tokens[:, 1:].mean(1))
        else:
            tokens = visual._embeds(image[None])
            tokens = visual.transformer(tokens)[:, 1:]
            after = visual.final_ln_after_pool
            pooled = visual.ln_post(tokens.mean(1)) if after else visual.ln_post(tokens).mean(1)
            feature = pooled @ visual.proj
    hook.remove()
    return leaves[0], feature


def test_attention_of_another_grid_is_that_of_the_model(clip: LoadedClip) -> None:
    """Rows sum to one at any size of image, and the class token comes first where there is one."""
    encoder = encoder_of(clip)
    rows, columns = 3, 5
    images = torch.randn(1, 3, rows * encoder.patch[0], columns * encoder.patch[1])
    encoding = encoder.run(images, attention_of=[DEPTH - 1])
    tokens = rows * columns + encoder.has_class_token
    assert encoding.grid == (rows, columns)
    assert encoding.attention[DEPTH - 1].shape == (1, tokens, tokens)
    torch.testing.assert_close(encoding.attention[DEPTH - 1].sum(-1), torch.ones(1, tokens))
    before = encoder.run(images, until=DEPTH - 1).tokens
    last = encoder.last_attention(before, encoding.grid)
    torch.testing.assert_close(last, encoding.attention[DEPTH - 1], **_CLOSE)
    block = encoder.last_block(before, encoding.grid)
    torch.testing.assert_close(block.attention.mean(1), last, **_CLOSE)
    torch.testing.assert_close(block.tokens, encoding.tokens, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", EVA[:2])
def test_positions_of_another_grid_are_those_of_timm(tmp_path: Path, name: str) -> None:
    """The angles span the grid that the model was trained on, whatever the image's grid."""
    clip = small_clip(tmp_path, name)
    encoder, trunk = encoder_of(clip), clip.model.get_submodule("visual.trunk")
    patch = encoder.patch[0]
    rope: Any = trunk.rope
    rope.update_feat_shape([6, 3])
    expected = rope.get_embed().chunk(2, -1)
    actual = encoder._embedding.rotation((6, 3))
    torch.testing.assert_close(actual, torch.stack(expected), **_CLOSE)
    with pytest.raises(ValueError, match="needs the patch grid"):
        encoder.last_block(encoder.run(torch.randn(1, 3, patch, patch), until=DEPTH - 1).tokens)


@pytest.mark.parametrize(
    "name", [*PLAIN, *EVA, "ViT-B-16-SigLIP", "ViT-gopt-16-SigLIP2-384", "ViT-H-14-378-quickgelu"]
)
def test_whole_configs_are_accepted(name: str) -> None:
    from wsss._compat import import_open_clip

    check_encoder(import_open_clip().get_model_config(name), name)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("EVA02-E-14", "EvaBlockPostNorm"),
        ("PE-Core-B-16", "pooling 'map'"),
        ("convnext_base", "ConvNeXt"),
        ("ViTamin-S", "pooling"),
        ("MobileCLIP-B", "pooling 'token'"),
        ("RN50", "a ResNet"),
        ("coca_ViT-B-32", "as CoCa's"),
    ],
)
def test_other_families_are_refused_before_any_download(name: str, kind: str) -> None:
    with pytest.raises(UnsupportedEncoderError) as caught:
        load_clip(name, "webli")
    message = str(caught.value)
    assert message.startswith(f"{name}: ")
    assert kind in message
    assert "supported are ViTs of open_clip with a class token" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"timm_model_name": "hf-hub:someone/model"}, "expected a name of timm"),
        ({"timm_model_pretrained": True}, "so that nothing is fetched"),
        ({"timm_model_name": "no_such_model"}, "timm cannot build no_such_model"),
    ],
)
def test_a_config_cannot_make_timm_fetch_or_fail_otherwise(
    change: dict[str, Any], message: str
) -> None:
    from wsss._compat import import_open_clip

    config = import_open_clip().get_model_config("EVA02-B-16")
    config = config | {"vision_cfg": config["vision_cfg"] | change}
    with pytest.raises(ClipLoadError, match=message):
        check_encoder(config, "a.json")


def test_normalisation_of_a_named_model_follows_its_weights() -> None:
    from wsss.clip.downloads import tag_preprocess

    half = (0.5, 0.5, 0.5)
    assert tag_preprocess("ViT-B-16-SigLIP") == {"mean": half, "std": half}
    assert tag_preprocess("EVA02-L-14") == {"mean": CLIP_MEAN, "std": CLIP_STD}
    assert tag_preprocess("ViT-B-16-quickgelu") == {"mean": CLIP_MEAN, "std": CLIP_STD}
    assert tag_preprocess("ViT-L-14") == {"mean": None, "std": None}  # LAION's differ from OpenAI's
