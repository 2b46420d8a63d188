"""Features of a second encoder as an affinity: on the grid of the maps, for every CAM source."""

import pytest
import torch
import torch.nn.functional as F

from tests.builders import clip_es_config
from tests.clip.models import tiny_clip
from tests.dino.models import SECTION
from wsss.cams.clip_sources import clip_cams
from wsss.cams.other_features import OtherFeatures, load_dino, on_grid
from wsss.cams.patch_affinity import cosine_affinity
from wsss.clip.encoder import ClipEncoder
from wsss.clip.images import CLIP_MEAN, CLIP_STD, IMAGENET_MEAN, IMAGENET_STD
from wsss.clip.text.embeddings import TextBank
from wsss.config.cams import CamsConfig
from wsss.config.clip import DinoConfig
from wsss.config.load import from_mapping
from wsss.pipeline.stages import stage_state

GRID = (4, 5)
PIXELS = (64, 80)  # patches of 16 or, with a remainder, of 14


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> OtherFeatures:
    folder = tmp_path_factory.mktemp("cache")
    return load_dino(DinoConfig(**SECTION), (CLIP_MEAN, CLIP_STD), folder, "cpu")


def _settings(source: str, **affinity: object) -> CamsConfig:
    cams = {"source": source, "affinity": {"last_blocks": 3} | affinity}
    return clip_es_config({"cams": cams | {"patch_text": {"blocks": 2}}}).cams


def test_a_grid_is_resized_bilinearly() -> None:
    torch.manual_seed(0)
    tokens = torch.randn(2, 12, 5)
    assert torch.equal(on_grid(tokens, (3, 4), (3, 4)), tokens)
    resized = on_grid(tokens, (3, 4), (6, 5))
    assert resized.shape == (2, 30, 5)
    for image in range(2):
        for channel in range(5):
            plane = tokens[image, :, channel].view(1, 1, 3, 4)
            expected = F.interpolate(plane, (6, 5), mode="bilinear", align_corners=False)
            torch.testing.assert_close(resized[image, :, channel], expected.flatten())


def test_images_enter_it_in_its_own_normalisation(other: OtherFeatures) -> None:
    torch.manual_seed(0)
    colours = torch.rand(2, 3, *PIXELS)

    def normalised(mean: tuple[float, ...], std: tuple[float, ...]) -> torch.Tensor:
        centre, scale = (torch.tensor(part).view(3, 1, 1) for part in (mean, std))
        return (colours - centre) / scale

    actual = other(normalised(CLIP_MEAN, CLIP_STD), GRID)
    expected = other.encoder.encode(normalised(IMAGENET_MEAN, IMAGENET_STD)).tokens
    torch.testing.assert_close(actual, on_grid(expected, GRID, GRID), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("source", ["grad_cam", "patch_text"])
def test_its_cosines_spread_the_maps(other: OtherFeatures, source: str) -> None:
    torch.manual_seed(0)
    encoder = ClipEncoder(tiny_clip().visual)
    texts = F.normalize(torch.randn(5, 24), dim=-1)
    images, bank = torch.randn(2, 3, *PIXELS), TextBank(texts[:3], texts[3:])
    arguments = (encoder, [images], [[0], [1, 2]], bank)
    plain, _ = clip_cams(*arguments, _settings(source))
    alone, propagated = clip_cams(*arguments, _settings(source, kind="dino"), other)
    cosines = cosine_affinity(other(images, GRID), 8.0)
    torch.testing.assert_close(alone.attention, cosines)
    assert propagated is not None
    assert propagated.isfinite().all()
    joined_with_it = _settings(source, kind="joined", joined_with="dino")
    joined, _ = clip_cams(*arguments, joined_with_it, other)
    assert plain.attention is not None
    expected = plain.attention[:, 1:, 1:] * cosines
    torch.testing.assert_close(joined.attention, expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    ("enabled", "method", "readers"),
    [
        (True, "weclip", {"cams", "refine_train", "score_masks"}),
        (False, "none", set()),
        (False, "weakclip", set()),
        # WeCLIP spreads its crops' CAMs, whether or not the stage CAMs does.
        (False, "weclip", {"refine_train", "score_masks"}),
    ],
)
def test_the_section_is_read_where_an_affinity_is_made(
    enabled: bool, method: str, readers: set[str]
) -> None:
    first, second = (
        from_mapping(
            {
                "cams": {"affinity": {"enabled": enabled, "kind": "dino"}},
                "refine": {"method": method},
                "dino": {"precision": precision},
            }
        )
        for precision in ("float32", "bfloat16")
    )
    stages = ("cams", "refine_train", "score_masks")
    assert {s for s in stages if stage_state(s, first) != stage_state(s, second)} == readers
    assert ("dino" in first.encoders_besides_clip) == bool(readers)
