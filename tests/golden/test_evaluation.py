"""The released tests of WeCLIP and ExCEL: inputs, logits, means, CRF, label maps."""

import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.golden.closeness import FLOAT32, SAME_PIXELS, Arrays, assert_close_rel, tensor
from tests.golden.published_heads import build_decoder, build_fusion, load_heads
from tests.golden.refiners import crop_batch, refiner_setup
from wsss.cams.grad_cam import block_cams
from wsss.cams.maps import scale_maps
from wsss.cams.patch_text import PatchText
from wsss.clip.input import EncoderInput
from wsss.clip.text.embeddings import TextBank
from wsss.config.labels import CrfConfig
from wsss.config.load import from_mapping
from wsss.labels.online import online_labels, score_stacks
from wsss.labels.par import pixel_adaptive_refinement
from wsss.labels.prediction import Prediction, candidates, label_maps
from wsss.refine.blocks.head import Head
from wsss.refine.blocks.model import HeadRefiner
from wsss.refine.excel.method import Excel
from wsss.refine.excel.relation import CalibratedFeatures, relation
from wsss.refine.inference import slide
from wsss.refine.training.crops import CropBatch
from wsss.refine.weclip.method import WeClip

GOLDEN = "evaluation.npz"
INPUT = 1e-5  # largest difference over largest magnitude
SAME_CRF = 0.99
CRF = CrfConfig(
    iterations=10, gaussian_sxy=3, gaussian_compat=3, bilateral_sxy=64, bilateral_srgb=5,
    bilateral_compat=4, image="raw", unary="float32",
)  # fmt: skip


def images_of(arrays: Arrays, method: str) -> list[str]:
    return sorted({key.split("/")[1] for key in arrays if re.match(rf"{method}/img\d+/", key)})


def build(
    golden_dir: Path,
    folder: Path,
    method: str,
    kind: str,
    side: int,
    scales: list[float],
    device: torch.device,
    **options: object,
) -> HeadRefiner[Any, Head]:
    """The published variant with the published head."""
    heads = load_heads(golden_dir / f"{method}_heads.safetensors")
    fusion, decoder = build_fusion(heads), build_decoder(heads)
    labels, width = decoder.classify.weight.shape[:2]
    cams = {
        "source": {"weclip": "grad_cam", "excel": "patch_text"}[method],
        "affinity": {"box_threshold": {"weclip": 0.4, "excel": 0.79}[method], "last_blocks": 6},
        "patch_text": {"tse": {"form": "topk"}},
    }
    weights = str(golden_dir / "clip_tiny.safetensors")
    config = from_mapping(
        {
            "variant": "published",
            "compute": {"device": "cpu"},
            "data": {"kind": kind},
            "clip": {
                "model": "from-weights",
                "pretrained": weights,
                "long_side": side,
                "input_size": side,
            },
            "cams": cams,
            "refine": {"method": method, method: {"width": width, **options}},
            "infer": {"scales": scales},
        },
        partial=True,
    )
    inputs = EncoderInput(config.clip, folder, device=str(device))
    kinds = {"weclip": WeClip, "excel": Excel}
    refiner = kinds[method](refiner_setup(config, inputs, labels=labels))
    refiner.head.fusion.load_state_dict(fusion.state_dict())
    refiner.head.decoder.load_state_dict(decoder.state_dict())
    refiner.train_mode(False)
    assert not refiner.draws_at_inference
    return refiner


def check_views(refiner: HeadRefiner[Any, Head], arrays: Arrays, image: str, method: str) -> None:
    """The input of each scale, and the logits of the image and of its mirror image."""
    photo, stride = arrays[f"{image}/image_uint8"], int(arrays[f"{method}/input_stride"])
    for scale in refiner.setup.infer.scales:
        name = f"{method}/{image}/{{}}_s{scale:g}".replace(".", "")
        pixels = refiner.scaled(photo, scale)
        assert list(pixels.shape[2:]) == list(arrays[name.format("input_size")])
        ours = pixels[0, :, ::stride, ::stride]
        assert_close_rel(ours, arrays[name.format("input")], INPUT, name)
        with torch.inference_mode():
            views = torch.cat([pixels, pixels.flip(-1)])
            logits = slide(refiner.logits, views, None, None, refiner.encoder.patch)
        assert_close_rel(logits, arrays[name.format("logits")], FLOAT32, name)


def label_of(logits: np.ndarray) -> np.ndarray:
    return logits.argmax(0).astype(np.uint8)


def same(ours: np.ndarray, published: np.ndarray, share: float, what: str) -> None:
    agreeing = (ours == published).mean()
    assert agreeing >= share, f"{what}: {agreeing:.5f} of the pixels agree"


def scales_of(arrays: Arrays, method: str) -> list[float]:
    """From the names: ``input_size_s075`` is of the scale 0.75."""
    keys = (re.fullmatch(rf"{method}/img\d+/input_size_s(\d)(\d*)", key) for key in arrays)
    return [float(f"{whole}.{rest}") for whole, rest in {m.groups(): None for m in keys if m}]


def check_mean(probs: torch.Tensor, mean_logits: np.ndarray, what: str) -> None:
    """The mean logits but for what a softmax does not show: the same number added to all labels."""
    published = torch.from_numpy(mean_logits).log_softmax(0)
    assert_close_rel(probs.log(), published, FLOAT32, what)


def test_weclip(golden_dir: Path, arrays: Arrays, tmp_path: Path, device: torch.device) -> None:
    long_side, scales = int(arrays["weclip/resize_long"]), scales_of(arrays, "weclip")
    refiner = build(golden_dir, tmp_path, "weclip", "voc", long_side, scales, device)
    infer = refiner.setup.infer
    for image in images_of(arrays, "weclip"):
        check_views(refiner, arrays, image, "weclip")
        photo, name = arrays[f"{image}/image_uint8"], f"weclip/{image}"
        mean = arrays[f"{name}/mean_logits"]
        check_mean(refiner.multi_scale(photo)[1], mean, f"{name}/mean_logits")
        probs = {key: p.cpu().numpy() for key, p in refiner.probabilities(photo).items()}
        same(label_of(probs["single"]), arrays[f"{name}/label_single"], SAME_PIXELS, name)
        multi = candidates(probs["multi"], infer.crf_labels)
        assert multi.ids == tuple(range(len(mean)))
        labels = label_maps(Prediction(photo, {"multi": multi}), CRF)
        same(labels["multi"], arrays[f"{name}/label"], SAME_PIXELS, name)
        same(labels["multi_crf"], arrays[f"{name}/label_crf"], SAME_CRF, name)


def test_cams_of_the_weclip_test(
    golden_dir: Path, arrays: Arrays, tmp_path: Path, device: torch.device
) -> None:
    """The label map that the script makes of the tags' CAMs next to the prediction."""
    long_side = int(arrays["weclip/resize_long"])
    refiner = build(golden_dir, tmp_path, "weclip", "voc", long_side, [1.0], device, rfm_start=0)
    assert isinstance(refiner, WeClip)
    texts = np.load(golden_dir / "weclip.npz")
    refiner.bank = TextBank(*(tensor(texts, name, device) for name in ("fg_text", "bg_text")))
    for image in images_of(arrays, "weclip"):
        photo = arrays[f"{image}/image_uint8"]
        tags = tensor(arrays, f"weclip/{image}/class_ids")
        pixels = refiner.scaled(photo, 1.0)
        height, width = (
            side // patch * patch
            for side, patch in zip(pixels.shape[2:], refiner.encoder.patch, strict=True)
        )
        whole = pixels[:, :, :height, :width]
        batch = crop_batch(whole, 1, torch.zeros_like(tags), tags).to(device)
        encoded = refiner.encode(batch, rfm=True)
        assert encoded.block is not None
        cams = block_cams(
            refiner.encoder, encoded.block, encoded.grid, [tags.tolist()], refiner.bank, "softmax"
        )
        initial = cams.scaled(refiner.setup.cams.scaling)
        with torch.no_grad():
            maps = refiner.cam_scores(batch.images[0], tags.tolist(), initial)
        labels = online_labels(pixels, maps, batch.image_index, tags, photo.shape[:2])
        same(labels[0].cpu().numpy(), arrays[f"weclip/{image}/pseudo_label"], SAME_PIXELS, image)


@pytest.mark.parametrize("kind", ["voc", "coco"])
def test_excel(
    golden_dir: Path, arrays: Arrays, tmp_path: Path, kind: str, device: torch.device
) -> None:
    scales = [float(scale) for scale in arrays["excel/scales"]]
    side = int(arrays["excel/resize_size"])
    refiner = build(golden_dir, tmp_path, "excel", kind, side, scales, device)
    infer = refiner.setup.infer.model_copy(update={"average_share": 1.0})
    at_size = Excel(replace(refiner.setup, infer=infer))
    at_size.head.load_state_dict(refiner.head.state_dict())
    at_size.train_mode(False)
    for image in images_of(arrays, "excel"):
        if kind == "voc":
            check_views(refiner, arrays, image, "excel")
        photo, name = arrays[f"{image}/image_uint8"], f"excel_{kind}/{image}"
        multi = refiner.probabilities(photo)["multi"].cpu().numpy()
        same(label_of(multi), arrays[f"{name}/label"], SAME_PIXELS, name)
        # The mean itself: at the size where it is taken, nothing is resized afterwards.
        share = refiner.setup.infer.average_share
        size = (int(share * photo.shape[0]), int(share * photo.shape[1]))
        _, mean = at_size.inference.probabilities(partial(at_size.scaled, photo), size)
        stride = int(arrays["mean_stride"]) if kind == "voc" else 1
        check_mean(mean[0, :, ::stride, ::stride], arrays[f"{name}/mean_logits"], name)


def test_what_the_refinement_sees(
    golden_dir: Path, arrays: Arrays, tmp_path: Path, device: torch.device
) -> None:
    refiner = build(golden_dir, tmp_path, "excel", "voc", 320, [1.0], device)
    inputs = refiner.setup.encoder_input
    images = torch.stack([inputs.normalize(i) for i in arrays["excel_label/image_uint8"]])
    levels = (255 * inputs.truncated(images.to(device))).round().to(torch.uint8)
    np.testing.assert_array_equal(levels.cpu().numpy(), arrays["excel_label/image_denormalised"])


@pytest.mark.parametrize("phase", ["static", "dynamic"])
@pytest.mark.parametrize("image", [0, 1])
def test_propagated_maps_of_excel_are_guarded(arrays: Arrays, phase: str, image: int) -> None:
    """A map whose range is small shows how its division is guarded: here by 1e-7, once."""
    folder = f"excel_label/{phase}/img{image}"
    propagated = tensor(arrays, f"{folder}/cam_refined")
    par_in = tensor(arrays, f"{folder}/par_in")
    options = {"variant": "published", "cams": {"source": "patch_text"}}
    scaling = from_mapping(options, partial=True).cams.affinity.scaling
    size = (par_in.shape[-2], par_in.shape[-1])
    first = torch.zeros(len(propagated), dtype=torch.long)
    stacks = score_stacks(scale_maps(propagated, scaling), first, 1, size)
    assert_close_rel(stacks[0], par_in, 1e-6, folder)


def check_parts(
    refiner: Excel,
    batch: CropBatch,
    features: CalibratedFeatures,
    related: torch.Tensor | None,
    arrays: Arrays,
    phase: str,
) -> None:
    """What the labels are made of: CAMs, spread CAMs, scores before and after the refinement."""
    rows = (batch.image_index, batch.classes)
    cams = refiner.patch_text.maps(refiner.tokens(features, related), features.grid, *rows)
    spread = refiner.spread(features.attention, cams, batch.image_index, related)
    size, images = batch.images.shape[2:], refiner.setup.encoder_input.truncated(batch.images)
    stacks = score_stacks(spread, batch.image_index, len(images), (size[0], size[1]))
    refined = pixel_adaptive_refinement(images, stacks)
    for image in range(len(images)):
        folder, mine = f"excel_label/{phase}/img{image}", batch.image_index == image
        assert_close_rel(cams[mine], arrays[f"{folder}/cam"], FLOAT32, f"{folder}/cam")
        published = scale_maps(tensor(arrays, f"{folder}/cam_refined"), "guarded_once")
        assert_close_rel(spread[mine], published, FLOAT32, f"{folder}/cam_refined")
        par_in, par_out = arrays[f"{folder}/par_in"], arrays[f"{folder}/par_out"]
        labels, step = len(par_in), par_in.shape[-1] // par_out.shape[-1]
        assert_close_rel(stacks[image, :labels], par_in, FLOAT32, f"{folder}/par_in")
        ours = refined[image, :labels, ::step, ::step]
        assert_close_rel(ours, par_out, FLOAT32, f"{folder}/par_out")


@pytest.mark.parametrize("phase", ["static", "dynamic"])
@pytest.mark.parametrize("par_image", ["truncated", "normalized"])
def test_labels_of_excel(
    golden_dir: Path,
    arrays: Arrays,
    tmp_path: Path,
    phase: str,
    par_image: str,
    device: torch.device,
) -> None:
    """From pixels. ``normalized`` is not as released, and gives the labels stored as such."""
    options = {"par_image": par_image}
    refiner = build(golden_dir, tmp_path, "excel", "voc", 320, [1.0], device, **options)
    assert isinstance(refiner, Excel)
    text = tensor(np.load(golden_dir / "excel.npz"), "tse/text", device)
    tags = tensor(arrays, "excel_label/class_labels")
    bank = TextBank(text[: tags.shape[1]], text[tags.shape[1] :])
    settings = refiner.setup.cams.patch_text
    refiner.patch_text = PatchText(refiner.encoder, bank, settings)
    inputs = refiner.setup.encoder_input
    images = torch.stack([inputs.normalize(i) for i in arrays["excel_label/image_uint8"]])
    grid = images.shape[-1] // refiner.encoder.patch[0]
    batch = crop_batch(images, grid, *tags.nonzero().unbind(1)).to(device)
    features = refiner.encode(batch.images, dynamic=phase == "dynamic")
    related = None
    if phase == "dynamic":
        with torch.no_grad():
            fused = refiner.head(features.features, features.grid).fused
            related = relation(fused, refiner.options)
    labels = refiner.pseudo_labels(batch, features, related).cpu().numpy()
    if par_image == "truncated":
        check_parts(refiner, batch, features, related, arrays, phase)
    name = {"truncated": "label", "normalized": "label_unquantised"}[par_image]
    other = {"truncated": "label_unquantised", "normalized": "label"}[par_image]
    for image, ours in enumerate(labels):
        folder = f"excel_label/{phase}/img{image}"
        published = arrays[f"{folder}/{name}"]
        same(ours, published, SAME_PIXELS, folder)
        # and nearer to it than to what the other image would give
        assert (ours == published).sum() > (ours == arrays[f"{folder}/{other}"]).sum()
