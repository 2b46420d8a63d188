"""CAMs of several scales and mirror images, against a loop over images and views."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from tests.builders import clip_es_config
from tests.clip.models import tiny_clip
from wsss.artifacts.digest import digest_file
from wsss.cams.affinity import propagate
from wsss.cams.clip_sources import clip_cams
from wsss.cams.grad_cam import grad_cam
from wsss.cams.maps import pack_classes, scale_maps
from wsss.cams.patch_text import PatchText, maps_of, similarity
from wsss.clip.encoder import ClipEncoder
from wsss.clip.input import EncoderInput
from wsss.clip.text.embeddings import TextBank
from wsss.config.cams import CamsConfig
from wsss.config.errors import ConfigError
from wsss.data.manifest import Sample

SIZES = {0.5: (32, 48), 1.0: (64, 80), 1.5: (96, 128)}
CLASSES = [[1], [], [0, 2], [2, 1, 0]]


@pytest.fixture(scope="module")
def encoder() -> ClipEncoder:
    return ClipEncoder(tiny_clip().visual)


@pytest.fixture(scope="module")
def bank() -> TextBank:
    torch.manual_seed(1)
    texts = F.normalize(torch.randn(5, 24), dim=-1)
    return TextBank(texts[:3], texts[3:])


def settings(source: str, **changes: object) -> CamsConfig:
    options = {"blocks": 2, "min_max_over": "tokens", "score": "surgery"}
    affinity = {"last_blocks": 3}
    cams = {"source": source, "affinity": affinity, "patch_text": options} | changes
    return clip_es_config({"cams": cams}).cams


def images(scale: float) -> torch.Tensor:
    torch.manual_seed(round(10 * scale))
    return torch.randn(len(CLASSES), 3, *SIZES[scale])


def raw_maps(
    encoder: ClipEncoder, pixels: torch.Tensor, classes: list[int], bank: TextBank, cams: CamsConfig
) -> torch.Tensor:
    """Of one view of one image: similarities of all tokens, or Grad-CAM's positive part."""
    if cams.source == "grad_cam":
        return grad_cam(encoder, pixels[None], [classes], bank, cams.gradient).maps.relu()
    patch_text = PatchText(encoder, bank, cams.patch_text)
    calibration = patch_text.calibration()
    assert calibration is not None
    encoding = encoder.run(pixels[None], calibration=calibration, class_token_last=True)
    features = patch_text.features(calibration.stream(encoding.tokens))
    texts = torch.cat([bank.classes, bank.backgrounds])
    rows = pack_classes([classes])
    return similarity(features, texts, *rows, cams.patch_text.score)


def slow(
    encoder: ClipEncoder, index: int, scales: list[float], bank: TextBank, cams: CamsConfig
) -> torch.Tensor:
    """The fused CAM of one image: a loop over its views."""
    grid = (SIZES[1.0][0] // 16, SIZES[1.0][1] // 16)
    classes, total, tokens, count = CLASSES[index], 0.0, 0.0, 0
    for scale in scales:
        rows, columns = SIZES[scale][0] // 16, SIZES[scale][1] // 16
        for mirrored in (False, True):
            pixels = images(scale)[index].flip(-1) if mirrored else images(scale)[index]
            raw = raw_maps(encoder, pixels, classes, bank, cams)
            if cams.source == "grad_cam":
                maps = raw * (rows * columns) / (grid[0] * grid[1])
            else:
                raw = raw * ((1 + rows * columns) / (1 + grid[0] * grid[1])) ** 0.5
                tokens, maps = tokens + raw[:, :1], raw[:, 1:].reshape(-1, rows, columns)
            maps = F.interpolate(maps[None], grid, mode="bilinear", align_corners=False)[0]
            total, count = total + (maps.flip(-1) if mirrored else maps), count + 1
    assert isinstance(total, torch.Tensor)
    if cams.source == "grad_cam":
        return scale_maps(total / count, cams.scaling)
    assert isinstance(tokens, torch.Tensor)
    both = torch.cat([tokens, total.flatten(1)], 1) / count
    return maps_of(both, grid, cams.patch_text.min_max_over)


@pytest.mark.parametrize("source", ["grad_cam", "patch_text"])
def test_views_are_averaged_before_they_are_scaled(
    encoder: ClipEncoder, bank: TextBank, source: str
) -> None:
    scales = [0.5, 1.0, 1.5]
    cams = settings(source, scales=scales, flip=True)
    views = [images(scale) for scale in scales]
    batch, propagated = clip_cams(encoder, views, CLASSES, bank, cams)
    expected = torch.cat(
        [slow(encoder, index, scales, bank, cams) for index, row in enumerate(CLASSES) if row]
    )
    torch.testing.assert_close(batch.maps, expected, rtol=1e-3, atol=1e-4)
    # Attention and probabilities are those of the photo itself.
    alone, _ = clip_cams(encoder, [images(1.0)], CLASSES, bank, settings(source))
    assert (batch.maps - alone.maps).abs().max() > 0.05
    assert alone.attention is not None
    assert propagated is not None
    torch.testing.assert_close(batch.attention, alone.attention, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(batch.probabilities, alone.probabilities, rtol=1e-4, atol=1e-6)
    rows = (batch.maps, batch.image_index, cams)
    torch.testing.assert_close(propagated, propagate(alone.attention, *rows), atol=1e-3, rtol=0)


@pytest.mark.parametrize("source", ["grad_cam", "patch_text"])
def test_a_single_view_is_the_cam_to_the_bit(
    encoder: ClipEncoder, bank: TextBank, source: str
) -> None:
    cams = settings(source, affinity={"enabled": False})
    for index in (0, 2):
        batch, _ = clip_cams(encoder, [images(1.0)[[index]]], [CLASSES[index]], bank, cams)
        raw = raw_maps(encoder, images(1.0)[index], CLASSES[index], bank, cams)
        grid = (batch.maps.shape[1], batch.maps.shape[2])
        expected = (
            scale_maps(raw, cams.scaling)
            if source == "grad_cam"
            else maps_of(raw, grid, cams.patch_text.min_max_over)
        )
        assert torch.equal(batch.maps, expected)


def test_photos_of_one_input_size_have_views_of_one_size(tmp_path: Path) -> None:
    inputs = EncoderInput(clip_es_config({}).clip, device="cpu")
    samples = []
    for index, size in enumerate([(33, 47), (40, 41)]):  # both enter as 40 x 48
        path = tmp_path / f"{index}.png"
        Image.fromarray(np.full((*size, 3), 50 * index, np.uint8)).save(path)
        samples.append(Sample(str(index), "train", path, size[1], size[0], digest_file(path), ()))
    scales = [0.5, 1.0, 1.5]
    views = [inputs.views(sample, scales) for sample in samples]
    shapes = [[tuple(view.shape[1:]) for view in of_sample] for of_sample in views]
    assert shapes == [[(24, 24), (40, 48), (64, 72)]] * 2
    for sample, of_sample in zip(samples, views, strict=True):
        assert torch.equal(of_sample[1], inputs.pixels(sample))


@pytest.mark.parametrize(
    ("cams", "message"),
    [
        ({"scales": [0.5, 1.5]}, "cams.scales must be positive and have 1 once"),
        ({"scales": [1.0, 1.0]}, "cams.scales must be positive and have 1 once"),
        ({"scales": [1.0, 0.0]}, "cams.scales must be positive and have 1 once"),
        ({"source": "external", "external": {"path": "x"}, "flip": True}, "not for external"),
    ],
)
def test_scales_that_mean_nothing_are_refused(cams: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        clip_es_config({"cams": cams})
