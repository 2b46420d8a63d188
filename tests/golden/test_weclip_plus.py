"""WeCLIP+, from pixels to labels, losses and gradients, and its test, against the published one."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.golden.closeness import FLOAT32, SAME_PIXELS, Arrays, assert_close_rel, tensor
from tests.golden.published_weclip_plus import KINDS, build_plus, gradient, plus_batch
from wsss.cams.affinity import balance, propagate_maps
from wsss.cams.boxes import box_masks
from wsss.labels.online import online_labels, score_stacks
from wsss.labels.par import pixel_adaptive_refinement
from wsss.refine.blocks.losses import affinity_labels, window
from wsss.refine.blocks.refinement import block_distances, select_near, trusted_affinity
from wsss.refine.inference import cut_to, slide
from wsss.refine.weclip_plus.losses import cross_losses, dice_loss
from wsss.refine.weclip_plus.method import WeClipPlus

GOLDEN = "weclip_plus.npz"
INPUT = 1e-5
STACK = 5e-4
"""A flat refined map that min and max stretch."""
LOSS_CASES = [f"loss_{kind}{self_}" for kind in KINDS for self_ in ("", "_self")]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def refiner(
    golden_dir: Path, arrays: Arrays, kind: str, tmp_path: Path, device: torch.device
) -> WeClipPlus:
    return build_plus(golden_dir, arrays, kind, tmp_path, device)


def test_dino_from_pixels(
    golden_dir: Path, arrays: Arrays, tmp_path: Path, device: torch.device
) -> None:
    refiner = build_plus(golden_dir, arrays, "voc", tmp_path, device)
    images = plus_batch(refiner, arrays, "voc", device).images
    stride = int(arrays["input_stride"])
    entering = refiner.dino.whole_patches(images)
    assert list(entering.shape[2:]) == list(arrays["dino_input_size"])
    assert_close_rel(entering[:, :, ::stride, ::stride], arrays["dino_input"], INPUT, "dino_input")
    features = refiner.dino.encode(images)
    positions = refiner.dino._positions_on(features.grid)
    assert_close_rel(positions, arrays["dino_pos_embed"], INPUT, "dino_pos_embed")
    assert_close_rel(features.tokens, arrays["dino_tokens"], FLOAT32, "dino_tokens")


@torch.no_grad()
def test_features_logits_and_affinity(
    refiner: WeClipPlus, arrays: Arrays, kind: str, device: torch.device
) -> None:
    features = refiner.encode(plus_batch(refiner, arrays, kind, device).images)
    tokens = arrays["clip_tokens_block11"][:, 1:]
    assert_close_rel(features.clip.features[0], tokens, FLOAT32, "clip_tokens_block11")
    decoded = refiner.decode(features)
    assert_close_rel(decoded.clip, arrays["features_clip"], FLOAT32, "features_clip")
    assert_close_rel(decoded.dino, arrays["features_dino"], FLOAT32, "features_dino")
    assert_close_rel(decoded.clip_logits, arrays[f"{kind}/logits_clip"], FLOAT32, "logits_clip")
    assert_close_rel(decoded.dino_logits, arrays[f"{kind}/logits_dino"], FLOAT32, "logits_dino")
    assert_close_rel(decoded.logits, arrays[f"{kind}/logits"], FLOAT32, "logits")
    affinity = refiner.affinity(refiner.fused(decoded))
    assert_close_rel(affinity, arrays["affinity"], FLOAT32, "affinity")


@torch.no_grad()
def test_what_labels_are_made_of(
    refiner: WeClipPlus, arrays: Arrays, kind: str, device: torch.device
) -> None:
    batch = plus_batch(refiner, arrays, kind, device)
    blocks = refiner.options.rfm_blocks_of(refiner.encoder.depth)
    features = refiner.encode(batch.images, attention_blocks=blocks, last_block=True)
    attention = features.clip.attention
    assert attention is not None
    decoded = refiner.decode(features)
    affinity = refiner.affinity(refiner.fused(decoded))
    distances = block_distances(affinity, attention, "signed")
    selected = select_near(distances)
    trusted = trusted_affinity(affinity, attention, selected)
    matrix = balance(trusted).matrix()
    half = (matrix + matrix.transpose(1, 2)) / 2
    cams, _, _ = refiner.initial_cams(batch, features.clip)
    gates = refiner.sources(decoded.logits, batch.image_index, batch.classes)
    assert gates is not None
    settings = refiner.setup.cams.affinity
    spread = propagate_maps(
        balance(trusted), cams, batch.image_index, box_threshold=settings.box_threshold,
        box_edge=settings.box_edge, sources=gates,
    )  # fmt: skip
    maps = refiner.refined(features.clip, cams, batch.image_index, affinity, gates)
    size = (batch.images.shape[2], batch.images.shape[3])
    stacks = score_stacks(maps, batch.image_index, len(batch.images), size)
    refined = pixel_adaptive_refinement(batch.images, stacks)
    for image in range(len(batch.images)):
        name, mine = f"{kind}/img{image}", batch.image_index == image
        parts = {
            "layer_score": distances[image],
            "affinity_before_sinkhorn": trusted[image],
            "cam": cams[mine],
            "gate": gates[mine],
            "source": cams[mine] * gates[mine],
            "cam_refined": spread[mine],
        }
        if f"{name}/transition" in arrays:
            parts["transition"] = half[image] @ half[image]
        for part, ours in parts.items():
            assert_close_rel(ours, arrays[f"{name}/{part}"], FLOAT32, f"{name}/{part}")
        is_selected = selected[image].cpu().numpy()
        np.testing.assert_array_equal(is_selected, arrays[f"{name}/layer_kept"] == 1, name)
        boxes = torch.ones_like(cams, dtype=torch.bool)
        if settings.box_threshold is not None:
            boxes = box_masks(cams, settings.box_threshold, settings.box_edge)
        np.testing.assert_array_equal(boxes[mine].cpu(), arrays[f"{name}/box_mask"] == 1, name)
        labels = len(arrays[f"{name}/cam_stack"])
        for part, scores in (("cam_stack", stacks), ("par_out", refined)):
            theirs = arrays[f"{name}/{part}"]
            step = size[0] // theirs.shape[-1]
            ours = scores[image, :labels, ::step, ::step]
            assert_close_rel(ours, theirs, STACK, f"{name}/{part}")


def test_block_12_is_fed_by_block_10_on_voc_alone(
    golden_dir: Path, arrays: Arrays, tmp_path: Path, device: torch.device
) -> None:
    """Of the candidates that both have, the last alone differs."""
    last = {}
    for kind in KINDS:
        refiner = build_plus(golden_dir, arrays, kind, tmp_path, device)
        images = plus_batch(refiner, arrays, kind, device).images
        attention = refiner.encode(images, attention_blocks=6).clip.attention
        assert attention is not None
        last[kind] = attention
    assert torch.equal(last["voc"][:, :-1], last["coco"][:, :-1])
    assert not torch.allclose(last["voc"][:, -1], last["coco"][:, -1], atol=1e-3)


def test_labels_from_pixels(
    refiner: WeClipPlus, arrays: Arrays, kind: str, device: torch.device
) -> None:
    batch = plus_batch(refiner, arrays, kind, device)
    start = refiner.options.self_training_start
    assert start is not None
    for step, case in ((start - 1, f"loss_{kind}"), (start, f"loss_{kind}_self")):
        labels = refiner.supervision(step, batch).cpu().numpy()
        agreeing = (labels == arrays[f"{case}/label"]).mean()
        assert agreeing >= SAME_PIXELS, f"{case}: {agreeing:.5f} of the pixels agree"


def test_the_network_labels_confident_pixels(
    refiner: WeClipPlus, arrays: Arrays, kind: str, device: torch.device
) -> None:
    """From the stored labels; some pixels get labels that are no tag."""
    batch = plus_batch(refiner, arrays, kind, device)
    labels = torch.from_numpy(arrays[f"loss_{kind}/label"]).to(device)
    decoded = refiner.decode(refiner.encode(batch.images))
    probabilities = decoded.at((labels.shape[1], labels.shape[2])).probabilities
    own = refiner.own_labels(10**6, batch, probabilities, labels)
    replaced = (probabilities.amax(1) > 0.75).cpu().numpy()
    assert (replaced == (arrays[f"loss_{kind}_self/replaced"] == 1)).mean() >= SAME_PIXELS
    assert (own.cpu().numpy() == arrays[f"loss_{kind}_self/label"]).mean() >= SAME_PIXELS
    shown = [{0, *(tag + 1 for tag in tags)} for tags in batch.tags]
    assert any(set(ids.unique().tolist()) - tags for ids, tags in zip(own, shown, strict=True))


@pytest.mark.parametrize("case", LOSS_CASES)
def test_losses_and_gradients_from_stored_labels(
    golden_dir: Path, arrays: Arrays, case: str, tmp_path: Path, device: torch.device
) -> None:
    kind = case.split("_")[1]
    refiner = build_plus(golden_dir, arrays, kind, tmp_path, device)
    batch = plus_batch(refiner, arrays, kind, device)
    labels = torch.from_numpy(arrays[f"{case}/label"]).to(device)
    # The pairs are those of the labels before the network replaced some.
    before = torch.from_numpy(arrays[f"loss_{kind}/label"]).to(device)
    decoded = refiner.decode(refiner.encode(batch.images))
    affinity = refiner.affinity(refiner.fused(decoded))
    size = (labels.shape[1], labels.shape[2])
    losses = refiner.losses_of(batch, decoded.at(size), affinity, labels, before)
    stored = {
        "seg_loss": losses["segmentation"],
        "aff_loss": losses["affinity"],
        "dice_loss": losses["dice"],
        "total_loss": losses["loss"],
    }
    for name, value in stored.items():
        assert_close_rel(value, arrays[f"{case}/{name}"], FLOAT32, f"{case}/{name}")
    cross = float(arrays[f"{case}/cross_clip_loss"] + arrays[f"{case}/cross_dino_loss"])
    assert losses["cross"].item() == pytest.approx(cross, rel=FLOAT32)
    losses["loss"].backward()
    prefix = f"{case}/grad/"
    shown = [key for key in arrays if key.startswith(prefix)]
    assert shown or kind == "coco"
    for key in shown:
        ours = gradient(refiner, key.removeprefix(prefix))
        assert_close_rel(ours, arrays[key], FLOAT32, key)
    names = [str(name) for name in arrays[f"{case}/grad_norm_names"]]
    norms = torch.stack([gradient(refiner, name).norm() for name in names])
    assert_close_rel(norms, arrays[f"{case}/grad_norms"], FLOAT32, f"{case}/grad_norms")


@pytest.mark.parametrize("case", LOSS_CASES)
def test_pairs_and_parts_of_the_losses(arrays: Arrays, case: str, device: torch.device) -> None:
    kind = case.split("_")[1]
    before, labels = (tensor(arrays, f"{name}/label", device) for name in (f"loss_{kind}", case))
    grid = tuple(arrays[f"{kind}/logits"].shape[2:])
    near = window((grid[0], grid[1]), 8, device)
    pairs = affinity_labels(before, (grid[0], grid[1]), near)
    np.testing.assert_array_equal(pairs.cpu().numpy(), arrays[f"{case}/affinity_label"], case)
    assert int((pairs == 1).sum()) + 1 == int(arrays[f"{case}/pos_count"])
    assert int((pairs == 0).sum()) + 1 == int(arrays[f"{case}/neg_count"])
    size = (labels.shape[1], labels.shape[2])
    clip, dino, both = (
        torch.nn.functional.interpolate(
            tensor(arrays, f"{kind}/{name}", device), size, mode="bilinear", align_corners=False
        )
        for name in ("logits_clip", "logits_dino", "logits")
    )
    first, second = cross_losses(clip, dino)
    assert_close_rel(first, arrays[f"{case}/cross_clip_loss"], FLOAT32, f"{case}/cross_clip_loss")
    assert_close_rel(second, arrays[f"{case}/cross_dino_loss"], FLOAT32, f"{case}/cross_dino_loss")
    dice = dice_loss(both.softmax(1), labels, "all")
    assert_close_rel(dice, arrays[f"{case}/dice_loss"], FLOAT32, f"{case}/dice_loss")


def test_loss_of_a_step_from_pixels(
    refiner: WeClipPlus, arrays: Arrays, kind: str, device: torch.device
) -> None:
    """A pixel on an edge may have another label, which moves a loss by up to 2e-4."""
    batch = plus_batch(refiner, arrays, kind, device)
    start = refiner.options.self_training_start
    assert start is not None
    for step, case in ((start - 1, f"loss_{kind}"), (start, f"loss_{kind}_self")):
        loss = refiner.loss(step, batch)["loss"].item()
        assert loss == pytest.approx(float(arrays[f"{case}/total_loss"]), rel=1e-3), case


def test_released_test(
    golden_dir: Path, arrays: Arrays, tmp_path: Path, device: torch.device
) -> None:
    side = int(arrays["test/resize_long"])
    sections = {"clip": {"long_side": side}, "infer": {"scales": [1.0, 1.5]}}
    refiner = build_plus(golden_dir, arrays, "voc", tmp_path, device, **sections)
    photo, stride = arrays["test/image_uint8"], int(arrays["input_stride"])
    for scale, name in ((1.0, "s1"), (1.5, "s15")):
        pixels = refiner.scaled(photo, scale)
        assert list(pixels.shape[2:]) == list(arrays[f"test/input_size_{name}"])
        ours = pixels[0, :, ::stride, ::stride]
        assert_close_rel(ours, arrays[f"test/input_{name}"], INPUT, f"input_{name}")
        entering = refiner.dino.whole_patches(pixels)
        assert list(entering.shape[2:]) == list(arrays[f"test/dino_input_size_{name}"])
        ours = entering[0, :, ::stride, ::stride]
        assert_close_rel(ours, arrays[f"test/dino_input_{name}"], INPUT, f"dino_input_{name}")
        with torch.inference_mode():
            views = torch.cat([pixels, pixels.flip(-1)])
            decoded = refiner.decode(refiner.encode(views))
            logits = slide(refiner.logits, views, None, None, refiner.unit)
        positions = refiner.dino._resized[1]
        assert_close_rel(positions, arrays[f"test/dino_pos_embed_{name}"], INPUT, name)
        parts = {"clip": decoded.clip_logits, "dino": decoded.dino_logits}
        for part, ours in parts.items():
            assert_close_rel(ours, arrays[f"test/logits_{part}_{name}"], FLOAT32, f"{part} {name}")
        assert torch.equal(logits, decoded.logits)
    _, mean = refiner.multi_scale(photo)
    expected = torch.from_numpy(arrays["test/mean_logits"]).softmax(0)
    assert_close_rel(mean, expected, FLOAT32, "mean_logits")
    for name, probs in refiner.probabilities(photo).items():
        theirs = arrays["test/label" if name == "multi" else "test/label_single"]
        assert (probs.argmax(0).cpu().numpy() == theirs).mean() >= SAME_PIXELS, name


def test_labels_of_cams_beside_the_test(
    golden_dir: Path, arrays: Arrays, tmp_path: Path, device: torch.device
) -> None:
    """`infer.scores: cam`, which computes the Grad-CAM of the skipped block itself."""
    side = int(arrays["test/resize_long"])
    refiner = build_plus(golden_dir, arrays, "voc", tmp_path, device, clip={"long_side": side})
    photo, tags = arrays["test/image_uint8"], torch.from_numpy(arrays["test/class_ids"])
    pixels = refiner.scaled(photo, 1.0)
    none = torch.zeros(len(tags), 1, 1, device=device)
    with torch.inference_mode():
        maps = refiner.cam_scores(cut_to(pixels[0], refiner.unit), tags.tolist(), none)
    rows = torch.zeros_like(tags)
    labels = online_labels(pixels, maps, rows, tags, (photo.shape[0], photo.shape[1]))
    agreeing = (labels[0].cpu().numpy() == arrays["test/pseudo_label"]).mean()
    assert agreeing >= SAME_PIXELS
