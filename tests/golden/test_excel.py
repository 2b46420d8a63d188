"""ExCEL against its published implementation (``excel.npz``): TSE, SVC, CAMs, LVC, one step."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from tests.builders import write_manifest_folder
from tests.golden.closeness import FLOAT32, SAME_PIXELS, Arrays, assert_close_rel, tensor
from tests.golden.published_heads import FUSION
from tests.golden.refiners import crop_batch, published_config, refiner_setup
from wsss.artifacts.checkpoint import load_checkpoint
from wsss.artifacts.stage import STAGES
from wsss.cams.affinity import balance
from wsss.cams.boxes import box_masks
from wsss.cams.maps import scale_maps
from wsss.cams.patch_text import PatchText, maps_of, similarity
from wsss.clip.input import EncoderInput
from wsss.clip.position import resize_positions
from wsss.clip.text.attributes import attribute_weights, enrich
from wsss.clip.text.embeddings import TextBank
from wsss.config.model import Config
from wsss.data.datasets.classes import ClassList
from wsss.labels.par import pixel_adaptive_refinement
from wsss.refine.blocks.losses import affinity_labels, affinity_loss, balanced_cross_entropy, window
from wsss.refine.blocks.refinement import block_distances, select_near
from wsss.refine.excel.method import Excel
from wsss.refine.excel.relation import CalibratedFeatures, relation, shift
from wsss.refine.released.importer import import_checkpoint
from wsss.refine.training.crops import CropBatch

GOLDEN = "excel.npz"
CLOSE = 1e-5  # what does not depend on the encoder; or a guard of a division shows at this size


def class_count(arrays: Arrays) -> int:
    return int(arrays["class_labels"].shape[1])


def _config(golden_dir: Path, arrays: Arrays, box: float = 0.79, **excel: object) -> Config:
    cams = {
        "source": "patch_text",
        "affinity": {"box_threshold": box, "last_blocks": 6},
        "patch_text": {"tse": {"form": "topk"}},
    }
    crop, width = arrays["image"].shape[-1], arrays["fused"].shape[1]
    return published_config(golden_dir, "excel", cams=cams, crop=crop, width=width, **excel)


@pytest.fixture(scope="module")
def imported(
    golden_dir: Path, arrays: Arrays, tmp_path_factory: pytest.TempPathFactory
) -> Mapping[str, torch.Tensor]:
    """The head of the release's checkpoint, by way of `import_checkpoint`."""
    folder = tmp_path_factory.mktemp("imported")
    names = tuple(f"class {index}" for index in range(class_count(arrays)))
    write_manifest_folder(folder, ClassList("golden", names, names, ()), [])
    config = _config(golden_dir, arrays)
    clip = load_file(golden_dir / "clip_tiny.safetensors")
    theirs = {f"encoder.{name}": value for name, value in clip.items()}
    table = theirs["encoder.visual.positional_embedding"]
    side = round((len(table) - 1) ** 0.5)
    # As the release's training mode leaves it, at the grid of its crops.
    theirs["encoder.visual.positional_embedding"] = resize_positions(table, (side, side), (20, 20))
    theirs |= load_file(golden_dir / "excel_heads.safetensors")
    torch.save({f"module.{name}": value for name, value in theirs.items()}, folder / "model.pth")
    out = folder / "checkpoint.safetensors"
    stage = STAGES["refine_import"].arguments(config)
    import_checkpoint(folder, folder / "model.pth", out, folder, **stage)
    return load_checkpoint(out)[0]


@pytest.fixture
def build(
    golden_dir: Path,
    arrays: Arrays,
    tmp_path: Path,
    imported: Mapping[str, torch.Tensor],
    device: torch.device,
) -> Callable[..., Excel]:
    def build_refiner(**options: float) -> Excel:
        config = _config(golden_dir, arrays, **options)
        inputs = EncoderInput(config.clip, tmp_path, device=str(device))
        refiner = Excel(refiner_setup(config, inputs, labels=arrays["seg_logits"].shape[1]))
        text = tensor(arrays, "tse/text")
        count = class_count(arrays)
        bank = TextBank(text[:count], text[count:]).to(device)
        refiner.patch_text = PatchText(inputs.encoder, bank, config.cams.patch_text)
        refiner.head.load_state_dict(imported)
        refiner.train_mode(False)
        return refiner

    return build_refiner


Build = Callable[..., Excel]


def _batch(arrays: Arrays, device: torch.device) -> CropBatch:
    images, tags = tensor(arrays, "image"), tensor(arrays, "class_labels").nonzero()
    return crop_batch(images, arrays["fused"].shape[-1], tags[:, 0], tags[:, 1]).to(device)


@torch.no_grad()
def _related(refiner: Excel, seen: CalibratedFeatures) -> torch.Tensor:
    return relation(refiner.head(seen.features, seen.grid).fused, refiner.options)


def test_attribute_weights(golden_dir: Path, arrays: Arrays) -> None:
    """On the CPU: texts are enriched there, whatever device encodes the images."""
    tse = _config(golden_dir, arrays).cams.patch_text.tse
    texts = tensor(arrays, "tse/class_text")
    bank = tensor(arrays, "tse/bank").T
    weights = attribute_weights(texts[: class_count(arrays)], bank, tse)
    assert_close_rel(weights, arrays["tse/weights"], CLOSE, "weights")
    assert ((weights == 0).sum(1) == int((1 - 0.9) * bank.shape[0])).all()
    enriched = torch.cat(
        [
            enrich(texts[: class_count(arrays)], bank, tse),
            F.normalize(texts[class_count(arrays) :], dim=-1),
        ]
    )
    assert_close_rel(enriched, arrays["tse/text"], CLOSE, "text")


def test_one_pass_of_the_encoder(build: Build, arrays: Arrays, device: torch.device) -> None:
    refiner = build()
    seen = refiner.encode(tensor(arrays, "image", device), dynamic=True)
    assert_close_rel(seen.stream, arrays["svc_stream"], FLOAT32, "stream")
    expected = arrays["feature_list"][:, :, 1:]
    assert_close_rel(seen.features, expected, FLOAT32, "features as published")
    attention = arrays["attention"][-6:, :, 1:, 1:].swapaxes(0, 1)
    assert_close_rel(seen.attention, attention, FLOAT32, "attention")
    features = refiner.tokens(seen)
    assert_close_rel(features, arrays["svc_features"], FLOAT32, "projected")


def test_clean_features_are_the_outputs_of_the_blocks(
    build: Build, arrays: Arrays, device: torch.device
) -> None:
    refiner = build(features="clean")
    features = refiner.encode(tensor(arrays, "image", device), dynamic=False).features
    expected = arrays["clean/feature_list_6_to_10_img0"][:, 1:]
    assert_close_rel(features[6:11, 0], expected, FLOAT32, "blocks 6 to 10")
    assert_close_rel(features[:6], arrays["feature_list"][:6, :, 1:], FLOAT32, "blocks 0 to 5")


def test_calibrated_attention(build: Build, arrays: Arrays, device: torch.device) -> None:
    refiner = build()
    encoder = refiner.encoder
    attention: list[torch.Tensor] = []
    rewrite = refiner.patch_text.calibration()._override

    class Spy:
        def __call__(self, heads):  # type: ignore[no-untyped-def]
            mixed, mean = rewrite(heads)
            attention.append(mean * encoder.blocks[0].heads)
            return mixed, mean

    from wsss.clip.calibration import Calibration

    calibration = Calibration(Spy(), refiner.patch_text.first)
    encoder.run(tensor(arrays, "image", device), calibration=calibration)
    assert_close_rel(torch.stack(attention), arrays["svc_attention"], FLOAT32, "attention")


def test_similarity_and_static_cam(arrays: Arrays, device: torch.device) -> None:
    features, texts = (tensor(arrays, name, device) for name in ("svc_features", "tse/text"))
    count = len(texts)
    image_index = torch.arange(len(features)).repeat_interleave(count)
    text_index = torch.arange(count).repeat(len(features))
    scores = similarity(features, texts, image_index, text_index)
    scaled = scale_maps(scores.unsqueeze(1)).view(len(features), count, -1).transpose(1, 2)
    assert_close_rel(scaled, arrays["similarity_all_texts"], FLOAT32, "similarity")
    side = arrays["fused"].shape[-1]
    maps = maps_of(scores, (side, side), "tokens").view(len(features), count, -1)
    assert_close_rel(
        maps[:, : class_count(arrays)].transpose(1, 2), arrays["cam_static"], FLOAT32, "static"
    )


def test_relation_and_dynamic_cam(build: Build, arrays: Arrays, device: torch.device) -> None:
    refiner = build()
    seen = refiner.encode(tensor(arrays, "image", device), dynamic=True)
    with torch.no_grad():
        decoded = refiner.head(seen.features, seen.grid)
    assert_close_rel(decoded.fused, arrays["fused"], FLOAT32, "fused")
    assert_close_rel(decoded.logits, arrays["seg_logits"], FLOAT32, "logits")
    related = relation(decoded.fused, refiner.options)
    positive = related >= 0
    np.testing.assert_array_equal(positive.cpu().numpy(), arrays["relation_positive_mask"] == 1)
    assert_close_rel(related.clamp_min(0), arrays["relation"], FLOAT32, "relation")
    assert_close_rel(related.sigmoid(), arrays["affinity"], FLOAT32, "affinity")
    assert_close_rel(shift(related), arrays["relation_softmax"], FLOAT32, "E")
    features = refiner.tokens(seen, related)
    image_index = torch.arange(2).repeat_interleave(class_count(arrays))
    classes = torch.arange(class_count(arrays)).repeat(2)
    maps = refiner.patch_text.maps(features, seen.grid, image_index, classes)
    cams = maps.flatten(1).view(2, class_count(arrays), -1).transpose(1, 2)
    assert_close_rel(cams, arrays["cam_dynamic"], FLOAT32, "dynamic")
    encoder = refiner.encoder
    expected = tensor(arrays, "svc_stream_dynamic", device)
    joint = encoder.project(encoder.normalize(expected))
    assert_close_rel(features, joint, FLOAT32, "dynamic features")


def test_maximum_with_the_mirror_image(build: Build, arrays: Arrays, device: torch.device) -> None:
    refiner = build()
    image_index = torch.arange(2).repeat_interleave(class_count(arrays))
    classes = torch.arange(class_count(arrays)).repeat(2)
    # As published, image and mirror image are one batch, over which the relation's mean runs.
    images = tensor(arrays, "image", device)
    seen = refiner.encode(torch.cat([images, images.flip(-1)]), dynamic=True)
    features = refiner.tokens(seen, _related(refiner, seen))
    straight, mirrored = (
        refiner.patch_text.maps(part, seen.grid, image_index, classes) for part in features.chunk(2)
    )
    cams = scale_maps(torch.maximum(straight, mirrored.flip(-1)), refiner.options.mirror_scaling)
    cams = cams.flatten(1).view(2, class_count(arrays), -1).transpose(1, 2)
    assert_close_rel(cams, arrays["cam_dynamic_flip_max"], CLOSE, "maximum")


@pytest.mark.parametrize(
    ("phase", "box"), [("static", 0.79), ("static_t88", 0.88), ("dynamic", 0.79)]
)
def test_refined_cams(
    build: Build, arrays: Arrays, phase: str, box: float, device: torch.device
) -> None:
    refiner = build(box=box)
    batch, dynamic = _batch(arrays, device), phase == "dynamic"
    seen = refiner.encode(batch.images, dynamic=dynamic)
    related = _related(refiner, seen) if dynamic else None
    features = refiner.tokens(seen, related)
    maps = refiner.patch_text.maps(features, seen.grid, batch.image_index, batch.classes)
    labels = refiner.pseudo_labels(batch, seen, related)
    spread = refiner.spread(seen.attention, maps, batch.image_index, related)
    for image in range(len(batch.images)):
        case, mine = f"{phase}/img{image}", batch.image_index == image
        np.testing.assert_array_equal(batch.classes[mine].numpy(), arrays[f"{case}/class_ids"])
        boxes = box_masks(maps[mine], box, "exclusive")
        np.testing.assert_array_equal(boxes.cpu().numpy(), arrays[f"{case}/box_mask"] == 1, case)
        expected = scale_maps(tensor(arrays, f"{case}/cam_refined"), "guarded_once")
        assert_close_rel(spread[mine], expected, FLOAT32, case)
        if related is not None:
            distances = block_distances(related.sigmoid(), seen.attention, "signed")
            assert_close_rel(distances[image], arrays[f"{case}/layer_score"], FLOAT32, case)
            nearest = select_near(distances)[image].cpu().numpy()
            np.testing.assert_array_equal(nearest, arrays[f"{case}/layer_kept"] == 1, case)
        if f"{case}/affinity_before_sinkhorn" in arrays:
            weights = tensor(arrays, f"{case}/affinity_before_sinkhorn", device)[None]
            matrix = balance(weights).matrix()
            half = (matrix + matrix.transpose(1, 2)) / 2
            assert_close_rel((half @ half)[0], arrays[f"{case}/transition"], FLOAT32, case)
        if f"{case}/label" in arrays:
            share = (labels[image].cpu().numpy() == arrays[f"{case}/label"]).mean()
            assert share >= SAME_PIXELS, f"{case}: {share:.5f} of the pixels agree"


def test_pixel_adaptive_refinement(arrays: Arrays, device: torch.device) -> None:
    for image in range(2):
        case = f"dynamic/img{image}"
        if f"{case}/par_out" not in arrays:
            continue
        maps = scale_maps(tensor(arrays, f"{case}/cam_refined", device), "guarded_once")
        photo = tensor(arrays, "image_denormalised", device)[image][None]
        size = (photo.shape[-2], photo.shape[-1])
        large = F.interpolate(maps[None], size, mode="bilinear", align_corners=False)
        stack = torch.cat([1 - large.amax(1, keepdim=True), large], dim=1)
        refined = pixel_adaptive_refinement(photo, stack)
        assert_close_rel(refined[0], arrays[f"{case}/par_out"], FLOAT32, case)


def test_crops_in_8_bits(build: Build, arrays: Arrays, device: torch.device) -> None:
    truncated = build().setup.encoder_input.truncated(tensor(arrays, "image", device))
    assert_close_rel(truncated, arrays["image_denormalised"], 1e-6, "levels")


def test_window(arrays: Arrays, device: torch.device) -> None:
    packed = arrays["radius_mask_20x20_r8_packed"]
    expected = np.unpackbits(packed)[: 400 * 400].reshape(400, 400)
    actual = window((20, 20), 8, device).cpu().numpy()
    np.testing.assert_array_equal(actual, expected == 1)
    assert actual.sum() == 71_824
    side = arrays["fused"].shape[-1]
    actual = window((side, side), 8, device).cpu().numpy()
    np.testing.assert_array_equal(actual, arrays["radius_mask_r8"] == 1)


STEPS = {
    "loss_static": {"lvc_start": 1},
    "loss_dynamic": {"lvc_start": 0},
    "loss_late": {"lvc_start": 0, "self_training_start": 0},
}


@pytest.mark.parametrize("case", STEPS)
def test_one_step_from_pixels(
    build: Build, arrays: Arrays, case: str, device: torch.device
) -> None:
    refiner = build(**STEPS[case])
    losses = refiner.loss(0, _batch(arrays, device))
    # A few pixels of the labels may differ (see above), each a 50000th of the sum.
    for ours, theirs in (("loss", "total"), ("segmentation", "seg"), ("affinity", "div")):
        expected = float(arrays[f"{case}/{theirs}_loss"])
        assert losses[ours].item() == pytest.approx(expected, rel=1e-3), ours
    losses["loss"].backward()
    names = [str(name) for name in arrays[f"{case}/grad_norm_names"]]
    norms = dict(zip(names, arrays[f"{case}/grad_norms"].tolist(), strict=True))
    weight = refiner.head.decoder.classify.weight.grad
    key = "decoder.linear_pred.weight"
    assert weight.norm().item() == pytest.approx(norms[key], rel=1e-2)
    assert_close_rel(weight, arrays[f"{case}/grad/{key}"], 1e-2, key)
    first = refiner.head.fusion.first_weight.grad
    key = f"{FUSION}linears_modulelist.6.proj.weight"
    assert_close_rel(first[6].T, arrays[f"{case}/grad/{key}"], 1e-2, key)


@pytest.mark.parametrize("case", STEPS)
def test_losses_of_the_published_labels(arrays: Arrays, case: str, device: torch.device) -> None:
    phase = "static" if case == "loss_static" else "dynamic"
    labels = torch.stack([tensor(arrays, f"{phase}/img{k}/label", device) for k in range(2)])
    logits = tensor(arrays, "seg_logits", device).requires_grad_()
    affinity = tensor(arrays, "affinity", device).requires_grad_()
    grid = (logits.shape[2], logits.shape[3])
    paired = tensor(arrays, "seg_pred", device) if case == "loss_late" else labels
    pairs = affinity_labels(paired, grid, window(grid, 8, device))
    np.testing.assert_array_equal(pairs.cpu().numpy(), arrays[f"{case}/affinity_label"])
    assert int((pairs == 1).sum()) + 1 == int(arrays[f"{case}/pos_count"])
    assert int((pairs == 0).sum()) + 1 == int(arrays[f"{case}/neg_count"])
    loss = balanced_cross_entropy(logits, labels) + 0.1 * affinity_loss(affinity, pairs)
    assert_close_rel(loss, arrays[f"{case}/total_loss"], FLOAT32, case)
    loss.backward()
    assert_close_rel(logits.grad, arrays[f"{case}/grad_seg_logits"], FLOAT32, case)
    assert_close_rel(affinity.grad, arrays[f"{case}/grad_affinity"], FLOAT32, case)


def test_loss_without_background(arrays: Arrays, device: torch.device) -> None:
    logits, labels = (tensor(arrays, name, device) for name in ("seg_logits", "loss_nobg/label"))
    loss = balanced_cross_entropy(logits, labels)
    assert_close_rel(loss, arrays["loss_nobg/seg_loss"], FLOAT32, "without background")
