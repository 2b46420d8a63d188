"""The released tests of WeCLIP and ExCEL: inputs, logits, means, label maps."""

import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.golden.closeness import FLOAT32, SAME_PIXELS, Arrays, assert_close_rel
from tests.golden.published_heads import build_decoder, build_fusion, load_heads
from tests.golden.refiners import crop_batch, refiner_setup
from wsss.cams.patch_text import PatchText
from wsss.clip.input import EncoderInput
from wsss.clip.text.embeddings import TextBank
from wsss.config.labels import CrfConfig
from wsss.config.load import from_mapping
from wsss.labels.crf import dense_crf
from wsss.refine.blocks.model import HeadRefiner
from wsss.refine.excel.method import Excel
from wsss.refine.excel.relation import relation
from wsss.refine.inference import slide
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
    **options: object,
) -> HeadRefiner[Any]:
    """The published variant with the published head."""
    heads = load_heads(golden_dir / f"{method}_heads.safetensors")
    fusion, decoder = build_fusion(heads), build_decoder(heads)
    labels, width = decoder.classify.weight.shape[:2]
    cams = {
        "source": {"weclip": "grad_cam", "excel": "patch_text"}[method],
        "affinity": {"box_threshold": 0.79, "last_blocks": 6},
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
    inputs = EncoderInput(config.clip, folder, device="cpu")
    kinds = {"weclip": WeClip, "excel": Excel}
    refiner = kinds[method](refiner_setup(config, inputs, labels=labels))
    refiner.head.fusion.load_state_dict(fusion.state_dict())
    refiner.head.decoder.load_state_dict(decoder.state_dict())
    refiner.train_mode(False)
    assert not refiner.draws_at_inference
    return refiner


def check_views(refiner: HeadRefiner[Any], arrays: Arrays, image: str, method: str) -> None:
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


def test_weclip(golden_dir: Path, arrays: Arrays, tmp_path: Path) -> None:
    long_side = int(arrays["weclip/resize_long"])
    refiner = build(golden_dir, tmp_path, "weclip", "voc", long_side, [1.0, 0.75])
    for image in images_of(arrays, "weclip"):
        check_views(refiner, arrays, image, "weclip")
        photo, name = arrays[f"{image}/image_uint8"], f"weclip/{image}"
        on_grid = refiner.multi_scale(photo)[1]
        mean = torch.from_numpy(arrays[f"{name}/mean_logits"])
        assert_close_rel(on_grid, mean.softmax(0), FLOAT32, f"{name}/mean_logits")
        probs = {key: p.numpy() for key, p in refiner.probabilities(photo).items()}
        same(label_of(probs["single"]), arrays[f"{name}/label_single"], SAME_PIXELS, name)
        same(label_of(probs["multi"]), arrays[f"{name}/label"], SAME_PIXELS, name)
        after_crf = label_of(dense_crf(probs["multi"], photo, CRF))
        same(after_crf, arrays[f"{name}/label_crf"], SAME_CRF, name)


@pytest.mark.parametrize("kind", ["voc", "coco"])
def test_excel(golden_dir: Path, arrays: Arrays, tmp_path: Path, kind: str) -> None:
    scales = [float(scale) for scale in arrays["excel/scales"]]
    side = int(arrays["excel/resize_size"])
    refiner = build(golden_dir, tmp_path, "excel", kind, side, scales)
    infer = refiner.setup.infer.model_copy(update={"average_share": 1.0})
    at_size = Excel(replace(refiner.setup, infer=infer))
    at_size.head.load_state_dict(refiner.head.state_dict())
    at_size.train_mode(False)
    for image in images_of(arrays, "excel"):
        if kind == "voc":
            check_views(refiner, arrays, image, "excel")
        photo, name = arrays[f"{image}/image_uint8"], f"excel_{kind}/{image}"
        multi = refiner.probabilities(photo)["multi"].numpy()
        same(label_of(multi), arrays[f"{name}/label"], SAME_PIXELS, name)
        # The mean itself: at the size where it is taken, nothing is resized afterwards.
        share = refiner.setup.infer.average_share
        size = (int(share * photo.shape[0]), int(share * photo.shape[1]))
        _, mean = at_size.inference.probabilities(partial(at_size.scaled, photo), size)
        stride = int(arrays["mean_stride"]) if kind == "voc" else 1
        published = torch.from_numpy(arrays[f"{name}/mean_logits"]).softmax(0)
        assert_close_rel(mean[0, :, ::stride, ::stride], published, FLOAT32, name)


def test_what_the_refinement_sees(golden_dir: Path, arrays: Arrays, tmp_path: Path) -> None:
    refiner = build(golden_dir, tmp_path, "excel", "voc", 320, [1.0])
    inputs = refiner.setup.encoder_input
    images = torch.stack([inputs.normalize(i) for i in arrays["excel_label/image_uint8"]])
    levels = (255 * inputs.truncated(images)).round().to(torch.uint8)
    np.testing.assert_array_equal(levels.numpy(), arrays["excel_label/image_denormalised"])


@pytest.mark.parametrize("phase", ["static", "dynamic"])
@pytest.mark.parametrize("par_image", ["truncated", "normalized"])
def test_labels_of_excel(
    golden_dir: Path, arrays: Arrays, tmp_path: Path, phase: str, par_image: str
) -> None:
    """From pixels. ``normalized`` is not as released, and gives the labels stored as such."""
    options = {"par_image": par_image}
    refiner = build(golden_dir, tmp_path, "excel", "voc", 320, [1.0], **options)
    assert isinstance(refiner, Excel)
    text = torch.from_numpy(np.load(golden_dir / "excel.npz")["tse/text"])
    tags = torch.from_numpy(arrays["excel_label/class_labels"])
    bank = TextBank(text[: tags.shape[1]], text[tags.shape[1] :])
    settings = refiner.setup.cams.patch_text
    refiner.patch_text = PatchText(refiner.encoder, bank, settings)
    inputs = refiner.setup.encoder_input
    images = torch.stack([inputs.normalize(i) for i in arrays["excel_label/image_uint8"]])
    grid = images.shape[-1] // refiner.encoder.patch[0]
    batch = crop_batch(images, grid, *tags.nonzero().unbind(1))
    features = refiner.encode(batch.images, dynamic=phase == "dynamic")
    related = None
    if phase == "dynamic":
        with torch.no_grad():
            fused = refiner.head(features.features, features.grid).fused
            related = relation(fused, refiner.options)
    labels = refiner.pseudo_labels(batch, features, related).numpy()
    name = {"truncated": "label", "normalized": "label_unquantised"}[par_image]
    other = {"truncated": "label_unquantised", "normalized": "label"}[par_image]
    for image, ours in enumerate(labels):
        folder = f"excel_label/{phase}/img{image}"
        published = arrays[f"{folder}/{name}"]
        same(ours, published, SAME_PIXELS, folder)
        # and nearer to it than to what the other image would give
        assert (ours == published).sum() > (ours == arrays[f"{folder}/{other}"]).sum()
