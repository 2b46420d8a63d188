"""WeakCLIP's network and its parts: counts, prompts, windows, and losses worked out by hand."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from wsss.clip.encoder import ClipEncoder
from wsss.clip.load import LoadedClip, load_clip
from wsss.clip.text.prompts import LearnablePrompt
from wsss.clip.towers import TextTower, short_texts
from wsss.compute.pool import WorkerPool
from wsss.config.load import from_mapping
from wsss.config.paths import expand_path
from wsss.config.refine import TrainingConfig
from wsss.refine.inference import slide
from wsss.refine.training.schedule import learning_rate
from wsss.refine.weakclip.adapter import PyramidAdapter
from wsss.refine.weakclip.boundary import boundary_crf
from wsss.refine.weakclip.losses import (
    auxiliary_loss,
    boundary_loss,
    label_probabilities,
    seed_loss,
    start_crf,
)
from wsss.refine.weakclip.network import WeakClipNetwork
from wsss.refine.weakclip.options import WeakClipOptions


def settings(variant: str = "corrected", **changes: object) -> WeakClipOptions:
    mapping = {"variant": variant, "refine": {"method": "weakclip", "weakclip": changes}}
    return from_mapping(mapping, partial=True).refine.weakclip


@pytest.fixture(scope="module")
def demo_clip() -> LoadedClip:
    clip = from_mapping({}).clip
    return load_clip(str(expand_path(clip.model)), str(expand_path(clip.pretrained)))


@pytest.fixture
def network(demo_clip: LoadedClip) -> WeakClipNetwork:
    encoder = ClipEncoder(demo_clip.model.get_submodule("visual"))
    return WeakClipNetwork(demo_clip, encoder, ["background", "cat"], settings(), 64)


def test_no_prompt_vectors_leave_the_text_as_it_is(demo_clip: LoadedClip) -> None:
    ids = demo_clip.tokenize(["cat", "fire hydrant", "background"])
    tokens = short_texts(ids)
    assert tokens.shape == (3, 5)
    tower = TextTower(demo_clip.model, tokens.shape[1])
    with torch.no_grad():
        actual = LearnablePrompt(0, tower.positions.shape[1], 0.02)(tower, tokens)
        whole = demo_clip.model.encode_text(
            demo_clip.tokenize(["cat", "fire hydrant", "background"])
        )
    torch.testing.assert_close(actual, whole)


def test_a_frozen_network_has_no_graph_in_clip(network: WeakClipNetwork) -> None:
    seen = network.encode(torch.zeros(1, 3, 64, 64))
    assert not seen.visual.requires_grad
    assert not any(p.requires_grad for p in network.text.parameters())
    _, logits = network.head(seen, network.texts())
    assert logits.shape == (1, 2, 32, 32)
    logits.sum().backward()
    trained = [network.head.prompt.contexts, *network.head.adapter.parameters()]
    assert all(parameter.grad is not None for parameter in trained)


def test_towers_that_are_computed_again_have_equal_gradients(demo_clip: LoadedClip) -> None:
    """With stochastic depth and dropout; what is kept for the backward pass is less than half."""
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    encoder = ClipEncoder(demo_clip.model.get_submodule("visual"))
    options = settings("published", clip_lr=0.1, drop_path=0.5)

    def step(*, recomputes: bool) -> tuple[dict[str, Tensor], int]:
        torch.manual_seed(1)
        network = WeakClipNetwork(demo_clip, encoder, ["background", "cat"], options, 64)
        network.train()
        if recomputes:
            assert network.recompute()
            assert not network.recompute()
        saved: dict[int, int] = {}

        def keep(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            saved[storage.data_ptr()] = storage.nbytes()
            return tensor

        torch.manual_seed(2)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            features, texts = network.encode(images), network.texts()
        in_towers = sum(saved.values())
        network.head(features, texts)[1].square().mean().backward()
        grads = {n: p.grad for n, p in network.trained.named_parameters() if p.grad is not None}
        network.trained.zero_grad()
        return grads, in_towers

    (plain, most), (recomputed, least) = step(recomputes=False), step(recomputes=True)
    assert plain.keys() == recomputed.keys()
    assert any(name.startswith("image.blocks") for name in plain)
    assert any(name.startswith("text.transformer") for name in plain)
    assert all(torch.equal(recomputed[name], grad) for name, grad in plain.items())
    assert least < most / 2


def test_odd_grids_pass(network: WeakClipNetwork) -> None:
    network.train(False)
    with torch.inference_mode():
        _, logits = network.head(network.encode(torch.zeros(2, 3, 40, 56)), network.texts())
    assert logits.shape == (2, 2, 20, 28)


def test_pyramid_has_four_scales() -> None:
    levels = PyramidAdapter(6)([torch.randn(1, 6, 4, 8)] * 4)
    assert [level.size for level in levels] == [(16, 32), (8, 16), (4, 8), (2, 4)]
    weight, bias = torch.randn(5, 6), torch.randn(5)
    for level in levels:
        maps = level.maps()
        assert tuple(maps.shape[2:]) == level.size
        expected = F.conv2d(maps, weight[:, :, None, None], bias)
        torch.testing.assert_close(level.convolved(weight, bias), expected, rtol=1e-4, atol=1e-4)


def test_seed_loss_by_hand() -> None:
    logits = torch.zeros(2, 2, 1, 4)
    logits[0, 1, 0, 1] = math.log(3)
    seeds = torch.tensor([[[0, 1, 1, 255]], [[0, 0, 255, 255]]], dtype=torch.uint8)
    actual = seed_loss(label_probabilities(logits), seeds)
    background = math.log(2)  # in both images
    foreground = (math.log(4 / 3) + math.log(2)) / 2  # in the first alone, averaged over both
    assert float(actual) == pytest.approx(background + foreground / 2, rel=1e-5)


def test_a_batch_without_cues_costs_nothing() -> None:
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    loss = seed_loss(label_probabilities(logits), torch.full((2, 4, 4), 255, dtype=torch.uint8))
    loss.backward()
    assert loss.item() == 0
    assert not logits.grad.any()


def test_boundary_loss_by_hand() -> None:
    share = torch.tensor([0.5, 0.5]).view(1, 2, 1, 1).repeat(1, 1, 1, 2)
    smoothed = torch.tensor([[0.75, 0.25], [0.9, 0.1]]).T.reshape(1, 2, 1, 2)
    first = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    second = 0.9 * math.log(1.8) + 0.1 * math.log(0.2)
    assert float(boundary_loss(share, smoothed)) == pytest.approx((first + second) / 2, rel=1e-5)
    padded = torch.tensor([[[True, False]]])
    assert float(boundary_loss(share, smoothed, padded)) == pytest.approx(first, rel=1e-5)


def test_the_crf_gets_no_gradient_and_knows_the_allowed_labels_alone() -> None:
    logits = torch.randn(1, 4, 6, 6, requires_grad=True)
    allowed = torch.tensor([[True, False, True, False]])
    share = label_probabilities(logits, allowed)
    image = np.random.default_rng(0).integers(0, 256, (6, 6, 3), np.uint8)
    crf = boundary_crf(settings().boundary, 4)
    smoothed = start_crf(share, [image], crf, allowed, WorkerPool(1))()
    assert not smoothed.requires_grad
    torch.testing.assert_close(smoothed.sum(1), torch.ones(1, 6, 6))
    assert not smoothed[:, ~allowed[0]].any()
    (boundary_loss(share, smoothed) + seed_loss(share, torch.full((1, 6, 6), 2))).backward()
    assert logits.grad[:, allowed[0]].any()
    assert not logits.grad[:, ~allowed[0]].any()


def test_a_seed_of_a_label_that_is_not_allowed_is_no_cue() -> None:
    logits = torch.randn(1, 3, 2, 2)
    allowed = torch.tensor([[True, True, False]])
    seeds = torch.full((1, 2, 2), 2, dtype=torch.uint8)
    assert float(seed_loss(label_probabilities(logits, allowed), seeds)) == 0
    match = torch.rand(1, 3, 2, 2)
    assert float(auxiliary_loss(match, seeds, temperature=0.1, allowed=allowed)) == 0


def test_auxiliary_mean_with_and_without_what_is_not_known() -> None:
    match = torch.rand(1, 3, 2, 2)
    seeds = torch.tensor([[[0, 1], [255, 255]]], dtype=torch.uint8)
    cues = auxiliary_loss(match, seeds, temperature=1.0)
    over_all = auxiliary_loss(match, seeds, temperature=1.0, ignored_count=True)
    assert float(cues) == pytest.approx(2 * float(over_all), rel=1e-6)
    logits = match[0, :, 0].T
    assert float(cues) == pytest.approx(float(F.cross_entropy(logits, torch.tensor([0, 1]))))


@pytest.mark.parametrize(
    ("size", "window", "stride"), [((11, 29), 8, 6), ((8, 8), 8, 5), ((5, 20), 8, 8)]
)
def test_windows_cover_every_pixel_and_average(
    size: tuple[int, int], window: int, stride: int
) -> None:
    pixels = torch.arange(size[0] * size[1]).view(1, 1, *size).float().repeat(2, 3, 1, 1)
    sizes: list[tuple[int, ...]] = []

    def same(images: Tensor) -> Tensor:
        sizes.append(tuple(images.shape[2:]))
        return images[:, :2]

    actual = slide(same, pixels, window, stride, (1, 1), [1])
    torch.testing.assert_close(actual, pixels[:, :1])
    assert set(sizes) == {(min(window, size[0]), min(window, size[1]))}


def test_a_relative_rate_of_zero_rises_under_the_cosine() -> None:
    """The leak of the release: eq. 24 of docs/methods/weakclip.md."""
    schedule = TrainingConfig(
        lr=1e-4, iterations=20_000, warmup=1500, schedule="cosine", min_lr=1e-6
    )
    leak = [learning_rate(step, schedule, 0.0) for step in (1500, 8000, 19_999)]
    assert leak[0] < leak[1] < leak[2] <= 1e-6
    assert leak[1] == pytest.approx(3.5e-7, rel=0.02)
    assert learning_rate(0, schedule) == pytest.approx(1e-10)
    assert learning_rate(19_999, schedule) == pytest.approx(1e-6, rel=1e-2)
