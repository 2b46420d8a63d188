"""Affinities from features against loops over pairs, and what each kind gives the CAM sources."""

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.builders import clip_es_config
from tests.clip.models import tiny_clip
from wsss.cams.affinity import propagate
from wsss.cams.clip_sources import clip_cams
from wsss.cams.patch_affinity import (
    class_distributions,
    cosine_affinity,
    divergences,
    pair_factor,
    pair_weights,
)
from wsss.clip.encoder import ClipEncoder
from wsss.clip.text.embeddings import TextBank
from wsss.config.cams import AffinityConfig, CamsConfig
from wsss.config.errors import ConfigError

CLASSES = [[1], [], [0, 2], [2, 1, 0]]
KINDS: dict[str, dict[str, Any]] = {
    "distribution": {"kind": "distribution"},
    "feature": {"kind": "feature", "exponent": 3.0},
    "joined": {"kind": "joined", "sharpness": 100.0, "tau": 0.2},
    "joined with the cosine": {"kind": "joined", "joined_with": "feature"},
}


def settings(source: str = "grad_cam", **affinity: object) -> CamsConfig:
    cams = {"source": source, "affinity": {"last_blocks": 3} | affinity}
    return clip_es_config({"cams": cams | {"patch_text": {"blocks": 2}}}).cams


@pytest.fixture(scope="module")
def encoder() -> ClipEncoder:
    return ClipEncoder(tiny_clip().visual)


@pytest.fixture(scope="module")
def bank() -> TextBank:
    torch.manual_seed(1)
    texts = F.normalize(torch.randn(5, 24), dim=-1)
    return TextBank(texts[:3], texts[3:])


def images() -> Tensor:
    torch.manual_seed(10)
    return torch.randn(len(CLASSES), 3, 64, 80)


def looped(features: Tensor, texts: Tensor, affinity: AffinityConfig) -> np.ndarray:
    """E or C of one image (eq. 1-5 of docs/methods/affinity.md), pair by pair in double."""
    unit = features.double().numpy()
    unit = unit / np.linalg.norm(unit, axis=1, keepdims=True)
    exponentials = np.exp(affinity.sharpness * unit @ texts.double().numpy().T)
    p = exponentials / exponentials.sum(1, keepdims=True)

    def entropy(values: np.ndarray) -> float:
        return -sum(value * math.log(value) for value in values if value > 0)

    result = np.empty((len(p), len(p)))
    for i in range(len(p)):
        for j in range(len(p)):
            if affinity.factor == "feature":
                result[i, j] = max(0.0, unit[i] @ unit[j]) ** affinity.exponent
            else:
                divergence = entropy((p[i] + p[j]) / 2) - entropy(p[i]) / 2 - entropy(p[j]) / 2
                result[i, j] = math.exp(-divergence / affinity.tau)
    return result


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sharpness", [3.0, 100.0])
def test_factors_equal_a_loop_over_pairs(bank: TextBank, kind: str, sharpness: float) -> None:
    torch.manual_seed(0)
    features = 5 * torch.randn(2, 13, 24)
    affinity = AffinityConfig(**KINDS[kind] | {"sharpness": sharpness})
    factor = pair_factor(features, bank, affinity)
    assert factor is not None
    texts = torch.cat([bank.classes, bank.backgrounds])
    for image in range(2):
        expected = looped(features[image], texts, affinity)
        np.testing.assert_allclose(factor[image].numpy(), expected, rtol=1e-4, atol=1e-6)
        assert expected.std() > 0.05


@pytest.mark.parametrize("rows", [1, 2, 5, 12, 13, 99])
def test_blocks_of_rows_give_the_whole_to_the_bit(rows: int) -> None:
    torch.manual_seed(0)
    distributions = torch.softmax(5 * torch.randn(3, 13, 21), -1)
    whole = divergences(distributions)
    assert torch.equal(divergences(distributions, rows), whole)
    assert torch.equal(whole, whole.transpose(1, 2))
    assert whole.diagonal(dim1=1, dim2=2).abs().max() < 1e-6


def test_nothing_in_common_diverges_by_ln_2_whatever_the_sharpness() -> None:
    texts = torch.eye(3)
    features = torch.stack([texts[0], texts[1], 7 * texts[0]])[None]
    distributions = class_distributions(features, texts, 1e4)
    assert (distributions > 0).all()
    expected = math.log(2) * torch.tensor([[0.0, 1, 0], [1, 0, 1], [0, 1, 0]])
    torch.testing.assert_close(divergences(distributions)[0], expected, atol=1e-6, rtol=0)


def test_opposite_features_have_no_affinity() -> None:
    features = torch.tensor([[[1.0, 0.0], [-2.0, 0.0], [1.0, 1.0], [0.0, 0.0]]])
    cosines = cosine_affinity(features, 2.0)[0]
    expected = torch.tensor([[1, 0, 0.5, 0], [0, 1, 0, 0], [0.5, 0, 1, 0], [0, 0, 0, 0]])
    torch.testing.assert_close(cosines, expected)


def test_weights_are_attention_times_the_factor() -> None:
    attention, factor = torch.rand(2, 7, 7), torch.rand(2, 6, 6)
    assert pair_weights(attention, None) is attention
    assert pair_weights(None, factor) is factor
    assert torch.equal(pair_weights(attention, factor), attention[:, 1:, 1:] * factor)
    assert torch.equal(pair_weights(attention[:, 1:, 1:], factor), attention[:, 1:, 1:] * factor)
    ones = torch.ones(2, 6, 6)
    assert torch.equal(pair_weights(attention, ones), attention[:, 1:, 1:])


@pytest.mark.parametrize("source", ["grad_cam", "patch_text"])
def test_patches_that_spread_alike_leave_the_attention_as_it_is(
    encoder: ClipEncoder, source: str
) -> None:
    """With one text alone all distributions are equal, so E is 1."""
    torch.manual_seed(2)
    bank = TextBank(F.normalize(torch.randn(1, 24), dim=-1), torch.zeros(0, 24))
    arguments = (encoder, [images()], [[0]] * 4, bank)
    plain, expected = clip_cams(*arguments, settings(source))
    joined, actual = clip_cams(*arguments, settings(source, kind="joined"))
    assert plain.attention is not None
    assert joined.attention is not None
    torch.testing.assert_close(joined.attention, plain.attention[:, 1:, 1:], rtol=1e-5, atol=0)
    torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("source", ["grad_cam", "patch_text"])
def test_every_kind_spreads_the_maps_of_every_source(
    encoder: ClipEncoder, bank: TextBank, source: str, kind: str
) -> None:
    arguments = (encoder, [images()], CLASSES, bank)
    plain, along_attention = clip_cams(*arguments, settings(source))
    cams = settings(source, **KINDS[kind])
    batch, propagated = clip_cams(*arguments, cams)
    torch.testing.assert_close(batch.maps, plain.maps, rtol=1e-3, atol=1e-4)
    assert plain.attention is not None
    assert batch.attention is not None
    assert along_attention is not None
    assert propagated is not None
    assert (propagated - along_attention).abs().max() > 0.05
    rows = (batch.maps, batch.image_index, cams)
    assert torch.equal(propagated, propagate(batch.attention, *rows))
    if cams.affinity.kind == "joined":  # the other part is what the kind alone gives
        of_factor = settings(source, **KINDS[kind] | {"kind": cams.affinity.joined_with})
        factor = clip_cams(*arguments, of_factor)[0].attention
        assert factor is not None
        expected = plain.attention[:, 1:, 1:] * factor
        torch.testing.assert_close(batch.attention, expected, rtol=1e-3, atol=1e-5)
    else:  # no attention was computed for it
        assert batch.attention.shape == (len(CLASSES), 20, 20)
        assert (batch.attention.diagonal(dim1=1, dim2=2) > 0.999).all()


def test_it_is_that_of_the_photo_itself_at_scale_1(encoder: ClipEncoder, bank: TextBank) -> None:
    """As the attention; views at other scales and mirror images change the maps alone."""
    views = [F.interpolate(images(), size=(32, 48)), images()]
    for kind in KINDS.values():
        cams = settings(**kind)
        several = cams.model_copy(update={"scales": [0.5, 1.0], "flip": True})
        alone, _ = clip_cams(encoder, [images()], CLASSES, bank, cams)
        batch, _ = clip_cams(encoder, views, CLASSES, bank, several)
        torch.testing.assert_close(batch.attention, alone.attention, rtol=1e-3, atol=1e-5)
        assert (batch.maps - alone.maps).abs().max() > 0.05


def test_options_that_a_kind_does_not_read_change_no_key() -> None:
    plain = CamsConfig().effective()
    others = {"joined_with": "feature", "sharpness": 7.0, "tau": 1.0, "exponent": 2.0}
    assert CamsConfig(affinity=AffinityConfig(**others)).effective() == plain
    read = {
        "attention": {"last_blocks"},
        "distribution": {"sharpness", "tau"},
        "feature": {"exponent"},
        "joined": {"last_blocks", "joined_with", "sharpness", "tau"},
    }
    for kind, expected in read.items():
        base = CamsConfig(affinity=AffinityConfig(kind=kind)).effective()
        changed = {
            name
            for name, value in {"last_blocks": 3, **others}.items()
            if CamsConfig(affinity=AffinityConfig(kind=kind, **{name: value})).effective() != base
        }
        assert changed == expected


def test_imported_maps_that_are_not_propagated_have_no_kind() -> None:
    external = {"source": "external", "external": {"path": "x"}, "affinity": {"kind": "joined"}}
    with pytest.raises(ConfigError, match=r"kind is joined, .* set cams\.external\.affinity"):
        clip_es_config({"cams": external})
    clip_es_config({"cams": external | {"external": {"path": "x", "affinity": True}}})
    # WeCLIP spreads them between the patches of its own encoder.
    image = {"method": "weclip", "weclip": {"crop_visibility": "image"}}
    clip_es_config({"cams": external, "refine": image})
