"""WeakCLIP's network against the published one (``weakclip.npz``), from pixels on."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.golden.closeness import FLOAT32, HALF, Arrays, assert_close_rel, tensor
from tests.golden.published_weakclip import build, checkpoint, new_network, our_names
from tests.golden.refiners import crop_batch, refiner_setup
from wsss.artifacts.checkpoint import load_checkpoint, save_checkpoint
from wsss.artifacts.provenance import Provenance
from wsss.cams.maps import resize_maps
from wsss.clip.input import EncoderInput
from wsss.compute.pool import WorkerPool
from wsss.config.infer import InferConfig
from wsss.config.load import from_mapping
from wsss.config.model import Config
from wsss.refine.base import Setup
from wsss.refine.inference import slide
from wsss.refine.released.matching import assemble
from wsss.refine.released.reading import read_source
from wsss.refine.training.crops import CropBatch
from wsss.refine.weakclip.boundary import boundary_crf, grid_photos
from wsss.refine.weakclip.losses import (
    auxiliary_loss,
    boundary_loss,
    label_probabilities,
    seed_loss,
    start_crf,
)
from wsss.refine.weakclip.method import WeakClip
from wsss.refine.weakclip.network import WeakClipNetwork
from wsss.refine.weakclip.options import WeakClipOptions
from wsss.refine.weakclip.released import parts

GOLDEN = "weakclip.npz"


@pytest.fixture(params=["with gradients", "frozen", "imported"])
def network(
    request: pytest.FixtureRequest,
    golden_dir: Path,
    arrays: Arrays,
    tmp_path: Path,
    device: torch.device,
) -> WeakClipNetwork:
    if request.param == "imported":
        return _imported(golden_dir, arrays, tmp_path, device)
    frozen = {"zero_lr": "frozen", "drop_path": 0.0}
    return build(golden_dir, arrays, device, **(frozen if request.param == "frozen" else {}))


def _imported(
    golden_dir: Path, arrays: Arrays, folder: Path, device: torch.device
) -> WeakClipNetwork:
    """By way of files: the release's checkpoint, and ours that is made of it."""
    network = new_network(golden_dir, arrays, device)
    for value in network.trained.state_dict().values():  # what is not imported is seen at once
        value.fill_(float("nan") if value.is_floating_point() else 0)
    released, ours = folder / "iter_8000.pth", folder / "checkpoint.safetensors"
    torch.save({"meta": {"iter": 8000}, "state_dict": checkpoint(golden_dir)}, released)
    source = read_source(released)
    assembled, rest = assemble(
        source.tensors, parts(network.trained.state_dict(), arrays["level1"].shape[1])
    )
    assert not assembled.problems
    assert not rest
    origin = Provenance(stage="refine_import", config={}, seed=0, code="", packages={})
    save_checkpoint(ours, assembled.tensors, origin)
    network.trained.load_state_dict(load_checkpoint(ours)[0])
    network.train(False)
    return network


@torch.no_grad()
def test_forward(network: WeakClipNetwork, arrays: Arrays, device: torch.device) -> None:
    seen, texts = network.encode(tensor(arrays, "image", device)), network.texts()
    assert_close_rel(texts, arrays["text_prompted"], FLOAT32, "text_prompted")
    assert_close_rel(seen.visual[:, 0], arrays["global_feature"], FLOAT32, "global_feature")
    patches = seen.visual[:, 1:].transpose(1, 2).unflatten(2, seen.grid)
    assert_close_rel(patches, arrays["visual_embedding"], FLOAT32, "visual_embedding")
    head = network.head
    levels = head.adapter(seen.maps)
    for index, level in enumerate(levels, 1):
        assert_close_rel(level.maps(), arrays[f"level{index}"], FLOAT32, f"level{index}")
    several = texts.expand(len(seen.visual), -1, -1)
    text_change, visual_change = head.matching.co_attention(several, seen.visual)
    assert_close_rel(text_change, arrays["text_residual"], FLOAT32, "text_residual")
    assert_close_rel(visual_change, arrays["visual_residual"], FLOAT32, "visual_residual")
    match, logits = head(seen, texts)
    assert_close_rel(match, arrays["match"], FLOAT32, "match")
    for index, level in enumerate(head.decoder.neck(levels, match), 1):
        assert_close_rel(level, arrays[f"neck{index}"], FLOAT32, f"neck{index}")
    assert_close_rel(logits, arrays["head_logits"], FLOAT32, "head_logits")


def test_losses_and_gradients_of_a_step(
    golden_dir: Path, arrays: Arrays, device: torch.device
) -> None:
    network = build(golden_dir, arrays, device)
    losses = _losses(golden_dir, arrays, network, device)
    for name in ("seed", "boundary"):
        assert_close_rel(losses[name], arrays[f"loss/{name}"], FLOAT32, name)
    weighted = network.settings.auxiliary_weight * losses["auxiliary"]
    assert_close_rel(weighted, arrays["loss/auxiliary"], FLOAT32, "auxiliary")
    assert_close_rel(losses["loss"], arrays["loss/total"], FLOAT32, "total")
    losses["loss"].backward()
    gradients = {name: p.grad for name, p in network.trained.named_parameters()}
    names = [str(name) for name in arrays["loss/grad_norm_names"]]
    ours = our_names(network)
    assert {ours[name] for name in names} == set(gradients)
    without = {
        ours[n] for n, norm in zip(names, arrays["loss/grad_norms"], strict=True) if norm < 0
    }
    assert {name for name, gradient in gradients.items() if gradient is None} == without
    norms = [-1.0 if g is None else float(g.norm()) for g in (gradients[ours[n]] for n in names)]
    assert_close_rel(np.array(norms), arrays["loss/grad_norms"], FLOAT32, "grad_norms")
    for key in [key for key in arrays if key.startswith("loss/grad/")]:
        gradient = gradients[ours[key.removeprefix("loss/grad/")]]
        assert_close_rel(gradient, arrays[key].reshape(gradient.shape), FLOAT32, key)


@pytest.mark.slow
def test_chained_layers_all_learn(golden_dir: Path, arrays: Arrays, device: torch.device) -> None:
    network = build(golden_dir, arrays, device, co_attention="chained")
    _losses(golden_dir, arrays, network, device)["loss"].backward()
    stacks = network.head.matching.co_attention.named_parameters()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for _, p in stacks)


@pytest.mark.parametrize("case", ["loss", "hand"])
def test_losses_from_logits(arrays: Arrays, case: str, device: torch.device) -> None:
    small, seeds = ("logits_small", "seed_small") if case == "loss" else ("logits", "seed")
    logits = tensor(arrays, f"{case}/{small}", device).requires_grad_()
    share = label_probabilities(logits)
    assert_close_rel(share, arrays[f"{case}/probs"], FLOAT32, "probs")
    crf = boundary_crf(_published().boundary, 1)
    images = list(arrays[f"{case}/crf_image"])
    smoothed = start_crf(share.detach(), images, crf, None, WorkerPool(1))()
    assert_close_rel(smoothed.log(), arrays[f"{case}/crf_log_floored"], HALF, "crf_log_floored")
    seed = seed_loss(share, tensor(arrays, f"{case}/{seeds}", device))
    boundary = boundary_loss(share, smoothed)
    assert_close_rel(seed, arrays[f"{case}/seed{'_loss' * (case == 'hand')}"], FLOAT32, "seed")
    assert_close_rel(boundary, arrays[f"{case}/boundary"], FLOAT32, "boundary")
    for name, loss in (("seed", seed), ("boundary", boundary)):
        (gradient,) = torch.autograd.grad(loss, logits, retain_graph=True)
        assert_close_rel(gradient, arrays[f"{case}/grad_{name}"], FLOAT32, f"grad_{name}")


def test_auxiliary_loss(arrays: Arrays, device: torch.device) -> None:
    match = tensor(arrays, "match", device).requires_grad_()
    settings = _published()
    loss = settings.auxiliary_weight * auxiliary_loss(
        match,
        tensor(arrays, "seed_label", device),
        temperature=settings.auxiliary_temperature,
        ignored_count=True,
    )
    assert_close_rel(loss, arrays["loss/auxiliary"], FLOAT32, "auxiliary")
    (gradient,) = torch.autograd.grad(loss, match)
    assert_close_rel(gradient, arrays["loss/grad_auxiliary_match"], FLOAT32, "gradient")


def test_image_of_the_crf(golden_dir: Path, arrays: Arrays, device: torch.device) -> None:
    size = arrays["loss/crf_image"].shape[1:3]
    images = tensor(arrays, "image", device)
    actual = grid_photos(images, size, _normalisation(golden_dir, device), _published().boundary)
    assert np.array_equal(np.stack(actual), arrays["loss/crf_image"])


@torch.no_grad()
def test_sliding_window(network: WeakClipNetwork, arrays: Arrays, device: torch.device) -> None:
    texts = network.texts()

    def logits(images: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = network.head(network.encode(images), texts)[1]
        return outputs

    pixels = tensor(arrays, "slide/image", device)[:1]
    for key, mirrored in (
        ("slide/probabilities_first7", False),
        ("slide/flipped_probabilities_first3", True),
    ):
        expected = arrays[key][0]
        view = slide(logits, pixels.flip(-1) if mirrored else pixels, 96, 64, (16, 16))[0]
        share = resize_maps(view, expected.shape[1:]).softmax(0)
        share = share.flip(-1) if mirrored else share
        assert_close_rel(share[: len(expected)], expected, FLOAT32, key)


@torch.no_grad()
def test_photos_in_the_released_test(
    golden_dir: Path, arrays: Arrays, device: torch.device
) -> None:
    """Sizes, windows, mirroring and means by hand, since no tensors of them are stored.

    At the first scale the photo is smaller than the window, at the second in one direction. The
    other photo is so narrow that the limit of its long side decides.
    """
    network = build(golden_dir, arrays, device)
    photo = arrays["image_uint8"][0]
    height, width = photo.shape[:2]
    short = min(height, width) // 8 * 4
    window = -(-max(height, width) * short // min(height, width) // 16) * 16
    infer = {"scales": [1.0, 1.25, 2.0], "short_side": short, "long_side": 4 * short}
    config = _config(golden_dir, infer | {"window": window, "stride": 2 * window // 3})
    inputs = _normalisation(golden_dir, device)
    setup = refiner_setup(config, inputs, arrays["head_logits"].shape[1])
    refiner = WeakClip(replace(setup, options=network.settings), network)
    for image in (photo, np.ascontiguousarray(photo[:, : height // 5])):
        ours = refiner.probabilities(image)["multi"]
        expected = _released_test(network, setup, image)
        assert_close_rel(ours.log(), expected.log(), FLOAT32, f"photo of {image.shape}")


def _released_test(network: WeakClipNetwork, setup: Setup[Any], photo: np.ndarray) -> torch.Tensor:
    """Probabilities as mmsegmentation 0.19 computes them, a view and a window at a time."""
    infer, size = setup.infer, (photo.shape[0], photo.shape[1])
    assert infer.short_side
    assert infer.long_side
    texts, views = network.texts(), []
    for scale in infer.scales:
        short, long = int(infer.short_side * scale), int(infer.long_side * scale)
        factor = min(short / min(size), long / max(size))
        height, width = (int(side * factor + 0.5) for side in size)
        scaled = cv2.resize(photo, (width, height), interpolation=cv2.INTER_LINEAR)
        pixels = setup.encoder_input.normalize(scaled)[None].to(texts.device)
        straight, mirrored = (
            resize_maps(_windows(network, texts, view, infer)[0], size).softmax(0)
            for view in (pixels, pixels.flip(-1))
        )
        views += [straight, mirrored.flip(-1)]
    return torch.stack(views).mean(0)


def _windows(
    network: WeakClipNetwork, texts: torch.Tensor, view: torch.Tensor, infer: InferConfig
) -> torch.Tensor:
    """Mean logits of windows, which are cut and not padded where the view is smaller."""
    side, stride = infer.window, infer.stride
    assert side
    assert stride
    height, width = view.shape[2:]
    total, times = view.new_zeros(1), view.new_zeros(height, width)
    for row in range(max(height - side + stride - 1, 0) // stride + 1):
        for column in range(max(width - side + stride - 1, 0) // stride + 1):
            bottom, right = min(row * stride + side, height), min(column * stride + side, width)
            top, left = max(bottom - side, 0), max(right - side, 0)
            crop = view[:, :, top:bottom, left:right]
            logits = network.head(network.encode(_whole_patches(crop)), texts)[1]
            logits = resize_maps(logits[0], (bottom - top, right - left))[None]
            total = total + F.pad(logits, (left, width - right, top, height - bottom))
            times[top:bottom, left:right] += 1
    return total / times


def _whole_patches(pixels: torch.Tensor) -> torch.Tensor:
    """Without what the first convolution of CLIP drops."""
    height, width = (side // 16 * 16 for side in pixels.shape[2:])
    return pixels[:, :, :height, :width]


def _published() -> WeakClipOptions:
    return from_mapping({"variant": "published"}, partial=True).refine.weakclip


def _losses(
    golden_dir: Path, arrays: Arrays, network: WeakClipNetwork, device: torch.device
) -> Mapping[str, torch.Tensor]:
    config = _config(golden_dir)
    labels = arrays["head_logits"].shape[1]
    setup = refiner_setup(config, _normalisation(golden_dir, device), labels)
    refiner = WeakClip(replace(setup, options=network.settings), network)
    return refiner.loss(0, _batch(arrays).to(device))


def _config(golden_dir: Path, infer: Mapping[str, Any] | None = None) -> Config:
    weights = str(golden_dir / "clip_tiny.safetensors")
    clip = {"model": "from-weights", "pretrained": weights, "normalization": "imagenet"}
    mapping: dict[str, Any] = {"variant": "published", "clip": clip, "infer": infer or {}}
    mapping |= {"refine": {"method": "weakclip"}}
    return from_mapping(mapping, partial=True)


def _normalisation(golden_dir: Path, device: torch.device) -> EncoderInput:
    return EncoderInput(_config(golden_dir).clip, golden_dir, device=str(device))


def _batch(arrays: Arrays) -> CropBatch:
    labels = tensor(arrays, "seed_label")
    return crop_batch(tensor(arrays, "image"), 1, labels=labels)
