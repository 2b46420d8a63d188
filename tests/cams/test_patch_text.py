"""Patch-text similarity against the four-dimensional form, and as a CAM source (ExCEL)."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.builders import clip_es_config
from wsss.artifacts.shard import Shard
from wsss.artifacts.stage import STAGES
from wsss.cams.patch_text import maps_of, probabilities, similarity
from wsss.cams.stage import run as make_cams
from wsss.config.base import overlay
from wsss.data.ingest.stage import ingest
from wsss.demo.dataset import generate


def _written_out(features: torch.Tensor, texts: torch.Tensor) -> torch.Tensor:
    """S[b, i, t] by way of a tensor of tokens x texts x channels: (B, N, T)."""
    unit = features / features.norm(dim=1, keepdim=True)
    prior = (2 * unit[:, 0] @ texts.T).softmax(-1)
    weights = prior / prior.mean(-1, keepdim=True)
    products = unit[:, :, None, :] * texts  # (B, N, T, C)
    products = products * weights[:, None, :, None]
    return (products - products.mean(2, keepdim=True)).sum(-1)


def test_surgery_as_two_products() -> None:
    torch.manual_seed(0)
    features, texts = torch.randn(3, 11, 8), F.normalize(torch.randn(6, 8), dim=-1)
    image_index, text_index = torch.tensor([0, 0, 2, 2, 2]), torch.tensor([4, 1, 0, 5, 2])
    actual = similarity(features, texts, image_index, text_index)
    expected = _written_out(features, texts)[image_index, :, text_index]
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6)
    # Images do not meet.
    alone = similarity(features[2:], texts, torch.zeros(3, dtype=torch.long), text_index[2:])
    torch.testing.assert_close(actual[2:], alone)


def test_cosine() -> None:
    features, texts = torch.randn(2, 5, 8), F.normalize(torch.randn(3, 8), dim=-1)
    actual = similarity(features, texts, torch.tensor([0, 1]), torch.tensor([2, 0]), "cosine")
    expected = F.cosine_similarity(features, texts[torch.tensor([2, 0])][:, None], dim=-1)
    torch.testing.assert_close(actual, expected)


def test_no_class_gives_no_map() -> None:
    none = torch.zeros(0, dtype=torch.long)
    actual = similarity(torch.randn(2, 5, 8), torch.randn(3, 8), none, none)
    assert maps_of(actual, (2, 2)).shape == (0, 2, 2)


def test_extremes_of_tokens_or_patches() -> None:
    scores = torch.tensor([[9.0, 1.0, 2.0, 3.0, 5.0]])  # the class token is the largest
    patches = maps_of(scores, (2, 2), "patches").flatten()
    torch.testing.assert_close(patches, torch.tensor([0.0, 0.25, 0.5, 1.0]))
    tokens = maps_of(scores, (2, 2), "tokens").flatten()
    torch.testing.assert_close(tokens, torch.tensor([0.0, 0.125, 0.25, 0.5]))
    constant = maps_of(torch.ones(1, 5), (2, 2))  # published: not a number
    assert (constant == 0).all()


def test_probabilities_are_over_the_image_s_classes() -> None:
    texts = F.normalize(torch.randn(5, 8), dim=-1)  # three classes, two backgrounds
    token = torch.randn(2, 8)
    image_index, text_index = torch.tensor([0, 0, 1]), torch.tensor([0, 2, 1])
    actual = probabilities(token, texts, 3, image_index, text_index, 100.0)
    logits = 100 * F.normalize(token, dim=-1) @ texts.T
    expected = logits[0, [0, 2, 3, 4]].softmax(0)
    torch.testing.assert_close(actual[:2], expected[:2])
    torch.testing.assert_close(actual[2], logits[1, [1, 3, 4]].softmax(0)[0])


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, object]]:
    folder = tmp_path_factory.mktemp("patch_text")
    generate(folder / "data", train=3, val=1)
    base: dict[str, object] = {
        "compute": {"device": "cpu"},
        "data": {"root": str(folder / "data"), "demo_images": [3, 1]},
        "cams": {"source": "patch_text", "affinity": {"last_blocks": 6}},
    }
    config = clip_es_config(base)
    ingest(folder / "manifest", variant=config.variant, data=config.data, compute=config.compute)
    return folder, base


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        {},
        {"variant": "published", "clip": {"input_size": 96}},
        {"cams": {"patch_text": {"relation": "none"}}},
        {"cams": {"patch_text": {"relation": "vv", "heads": "each", "score": "cosine"}}},
        {"cams": {"patch_text": {"tse": {"form": "topk"}}}},
    ],
)
def test_source(
    scenes: tuple[Path, dict[str, object]], change: dict[str, object], tmp_path: Path
) -> None:
    folder, base = scenes
    config = clip_es_config(overlay(base, change))
    out = tmp_path / "cams.h5"
    arguments = STAGES["cams"].arguments(config)
    make_cams(folder / "manifest", "train", (1, 1), out, folder / "cache", **arguments)
    with Shard(out, kind="cams") as shard:
        assert len(list(shard.ids)) == 3
        for item in shard:
            for maps in item.arrays.values():
                assert np.isfinite(maps).all()
                assert maps.min() >= 0
                assert maps.max() <= 1
            assert set(item.arrays) == {"cam", "cam_affinity"}
            if config.clip.keep_ratio is False:
                side = config.clip.input_size // 8
                assert item.attrs["grid"] == [side, side]
            assert all(0 <= p <= 1 for p in item.attrs["probabilities"])


def test_cams_are_independent_of_the_part(
    scenes: tuple[Path, dict[str, object]], tmp_path: Path
) -> None:
    folder, base = scenes
    arrays = {}
    for parts in (1, 3):
        for part in range(1, parts + 1):
            out = tmp_path / f"{part}-{parts}.h5"
            shard = (part, parts)
            arguments = STAGES["cams"].arguments(clip_es_config(base))
            make_cams(folder / "manifest", "train", shard, out, folder / "cache", **arguments)
            with Shard(out, kind="cams") as stored:
                for item in stored:
                    stored_arrays = arrays.setdefault(item.id, item.arrays)
                    for name, array in item.arrays.items():
                        np.testing.assert_array_equal(stored_arrays[name], array)
    assert len(arrays) == 3
