"""Predictions equal mmsegmentation's own, image by image, however the work is cut."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from tests.retrain.small_networks import small
from wsss.artifacts.checkpoint import save_checkpoint
from wsss.artifacts.digest import digest_json
from wsss.artifacts.errors import ArtifactError
from wsss.artifacts.provenance import provenance
from wsss.artifacts.shard import Shard
from wsss.config.load import from_mapping
from wsss.config.model import Config
from wsss.data.images.read import read_image
from wsss.retrain.architecture import build_model, model_config
from wsss.retrain.inference import Segmenter
from wsss.retrain.predict import predict

Configure = Callable[..., Config]
CPU = torch.device("cpu")


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    built = build_model(model_config("segformer-b0", labels=4, crop=48))
    built.init_weights()
    with torch.no_grad():
        built.decode_head.conv_seg.weight.mul_(100)  # decided, so that averages matter
    return built.eval()


@pytest.fixture
def checkpoint(data: Any, model: nn.Module, configure: Configure, tmp_path: Path) -> Path:
    path = tmp_path / "segmenter.safetensors"
    made_of = provenance(
        "retrain",
        entry=["wsss.retrain.train"],
        sections={"retrain": configure().retrain},
        seed=0,
        inputs={"classes": digest_json(data.classes.names)},
    )
    save_checkpoint(path, model.state_dict(), made_of)
    return path


def reference(model: nn.Module, photo: np.ndarray, scales: list[float], flip: bool) -> np.ndarray:
    """Mean probabilities [labels, H, W], from mmsegmentation's prediction and OpenCV's scaling."""
    height, width = photo.shape[:2]
    found = []
    for scale in scales:
        size = (int(width * scale + 0.5), int(height * scale + 0.5))
        scaled = cv2.resize(photo.astype(np.float32), size, interpolation=cv2.INTER_LINEAR)
        for mirrored in (False, True) if flip else (False,):
            view = scaled[:, ::-1] if mirrored else scaled
            bgr = torch.from_numpy(np.ascontiguousarray(view[:, :, ::-1].transpose(2, 0, 1)))
            with torch.no_grad():
                inputs = model.data_preprocessor({"inputs": [bgr]}, training=False)["inputs"]
                (sample,) = model.predict(inputs)
            logits = sample.seg_logits.data.numpy().transpose(1, 2, 0)
            logits = logits[:, ::-1] if mirrored else logits
            logits = cv2.resize(
                np.ascontiguousarray(logits), (width, height), interpolation=cv2.INTER_LINEAR
            )
            exponent = np.exp(logits - logits.max(axis=2, keepdims=True))
            found.append(exponent / exponent.sum(axis=2, keepdims=True))
    return np.mean(found, axis=0).transpose(2, 0, 1)


@pytest.mark.parametrize(("scales", "flip"), [([1.0], False), ([0.75, 1.0, 1.5], True)])
def test_probabilities_equal_brute_force(model: nn.Module, scales: list[float], flip: bool) -> None:
    photos = np.random.default_rng(0).integers(0, 256, (2, 44, 61, 3), np.uint8)
    photos = np.stack([cv2.GaussianBlur(photo, (0, 0), 4) for photo in photos])
    found = Segmenter(model, CPU).probabilities(photos, scales=scales, flip=flip).numpy()
    assert found.shape == (2, 4, 44, 61)
    for photo, ours in zip(photos, found, strict=True):
        expected = reference(model, photo, scales, flip)
        np.testing.assert_allclose(ours, expected, atol=1e-4)
    assert found.max(axis=1).std() > 0.01  # the comparison is not about constants


def test_logits_are_averaged_where_that_is_asked(model: nn.Module) -> None:
    photos = np.random.default_rng(0).integers(0, 256, (1, 44, 60, 3), np.uint8)
    photos = np.stack([cv2.GaussianBlur(photo, (0, 0), 4) for photo in photos])
    scales = (0.75, 1.0)
    total = torch.zeros(1, 4, 44, 60)
    with torch.no_grad():
        for scale in scales:
            for flip in (False, True):
                seen = torch.from_numpy(photos).permute(0, 3, 1, 2).float()
                size = (round(44 * scale), round(60 * scale))
                seen = nn.functional.interpolate(seen, size, mode="bilinear")
                seen = seen.flip(3) if flip else seen
                inputs = (seen - model.data_preprocessor.mean) / model.data_preprocessor.std
                logits = model.encode_decode(inputs, [{"img_shape": size}])
                logits = nn.functional.interpolate(logits, (44, 60), mode="bilinear")
                total += logits.flip(3) if flip else logits
    segmenter = Segmenter(model, CPU, average="logits")
    found = segmenter.probabilities(photos, scales=scales, flip=True)
    torch.testing.assert_close(found, (total / 4).softmax(dim=1), rtol=1e-4, atol=1e-4)
    other = Segmenter(model, CPU).probabilities(photos, scales=scales, flip=True)
    assert (found - other).abs().max() > 1e-3


@pytest.mark.parametrize("size", [(100, 70), (64, 64), (40, 90)])
def test_windows_cover_the_image_and_are_averaged(size: tuple[int, int]) -> None:
    net = small("segmenter-deit-s", crop=64).eval()
    photos = np.random.default_rng(0).integers(0, 256, (2, *size, 3), np.uint8)
    found = Segmenter(net, CPU, window=64, stride=48).probabilities(photos)

    preprocessor = net.data_preprocessor
    inputs = torch.from_numpy(photos).permute(0, 3, 1, 2).float()
    inputs = (inputs - preprocessor.mean) / preprocessor.std
    height, width = (side + -side % 16 for side in size)
    inputs = nn.functional.pad(inputs, (0, width - size[1], 0, height - size[0]))
    total, count = torch.zeros(2, 4, height, width), torch.zeros(height, width)
    with torch.no_grad():
        for top in {min(start, max(height - 64, 0)) for start in range(0, height, 48)}:
            for left in {min(start, max(width - 64, 0)) for start in range(0, width, 48)}:
                place = (slice(top, min(top + 64, height)), slice(left, min(left + 64, width)))
                view = inputs[(..., *place)]
                shape = tuple(view.shape[2:])
                total[(..., *place)] += net.encode_decode(view, [{"img_shape": shape}])
                count[place] += 1
    expected = (total / count)[..., : size[0], : size[1]].softmax(dim=1)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_a_window_that_the_network_cannot_take_is_refused() -> None:
    with pytest.raises(ValueError, match=r"predict\.window is 50; expected a multiple .* \(16 pix"):
        Segmenter(small("segmenter-deit-s", crop=64), CPU, window=50)


def test_shard_holds_both_protocols_at_image_size(
    data: Any, configure: Configure, checkpoint: Path, model: nn.Module, tmp_path: Path
) -> None:
    out = tmp_path / "predictions.h5"
    predict(configure(), data.manifest_dir, "val", (1, 1), checkpoint, out)
    with Shard(out, kind="predictions") as shard:
        items = {item.id: item for item in shard}
        assert shard.provenance.stage == "predict"
    assert set(items) == {"v1", "v2", "v3", "tiny"}
    for sample in data.samples[6:]:
        arrays = items[sample.id].arrays
        assert set(arrays) == {"single", "multi"}
        assert {array.dtype for array in arrays.values()} == {np.dtype(np.uint8)}
        assert {array.shape for array in arrays.values()} == {(sample.height, sample.width)}
        assert max(array.max() for array in arrays.values()) <= 3
        if sample.id == "tiny":  # smaller than the network takes: padded, so no reference
            continue
        photo = read_image(sample.path)
        for name, (scales, flip) in {
            "single": ([1.0], False),
            "multi": ([0.75, 1.0, 1.5], True),
        }.items():
            expected = reference(model, photo, scales, flip).argmax(axis=0)
            assert (arrays[name] != expected).mean() < 0.002  # ties apart


def test_content_does_not_depend_on_the_cut(
    data: Any, configure: Configure, checkpoint: Path, tmp_path: Path
) -> None:
    def content(name: str, config: Config, part: tuple[int, int]) -> dict[str, bytes]:
        out = tmp_path / name
        predict(config, data.manifest_dir, "val", part, checkpoint, out)
        with Shard(out, kind="predictions") as shard:
            return {
                item.id: item.key.encode() + b"".join(a.tobytes() for a in item.arrays.values())
                for item in shard
            }

    whole = content("whole.h5", configure(), (1, 1))
    parts = [content(f"{part}.h5", configure(compute_batch=2), (part, 3)) for part in (1, 2, 3)]
    assert {image: stored for part in parts for image, stored in part.items()} == whole
    assert sum(map(len, parts)) == len(whole) == 4


def test_other_architecture_or_classes_are_refused(
    data: Any, configure: Configure, checkpoint: Path, model: nn.Module, tmp_path: Path
) -> None:
    out = tmp_path / "p.h5"
    with pytest.raises(
        ArtifactError, match=r"holds 'segformer-b0', but retrain\.model is 'segformer-b1'"
    ):
        predict(configure(model="segformer-b1"), data.manifest_dir, "val", (1, 1), checkpoint, out)
    made_of = provenance(
        "retrain", entry=["wsss.retrain.train"], sections={"retrain": configure().retrain}, seed=0,
        inputs={"classes": digest_json(["dog"])},
    )  # fmt: skip
    save_checkpoint(checkpoint, model.state_dict(), made_of)
    with pytest.raises(ArtifactError, match="another class list"):
        predict(configure(), data.manifest_dir, "val", (1, 1), checkpoint, out)
    assert not out.exists()


@pytest.mark.parametrize("workers", [1, 2])
def test_crf_arrays_are_those_of_a_crf_on_all_labels(
    data: Any,
    configure: Configure,
    checkpoint: Path,
    model: nn.Module,
    tmp_path: Path,
    workers: int,
) -> None:
    from wsss.labels.crf import dense_crf

    config = configure(predict_crf=True, workers=workers)
    out = tmp_path / "predictions.h5"
    predict(config, data.manifest_dir, "val", (1, 1), checkpoint, out)
    changed = 0
    with Shard(out, kind="predictions") as shard:
        items = {item.id: item.arrays for item in shard}
    for sample in data.samples[6:9]:
        arrays = items[sample.id]
        assert set(arrays) == {"single", "multi", "single_crf", "multi_crf"}
        photo = read_image(sample.path)
        for name, (scales, flip) in {
            "single": ([1.0], False),
            "multi": ([0.75, 1.0, 1.5], True),
        }.items():
            everything = reference(model, photo, scales, flip).astype(np.float32)
            expected = dense_crf(everything, photo, config.masks.crf).argmax(axis=0)
            assert (arrays[f"{name}_crf"] != expected).mean() < 0.01
            changed += (arrays[f"{name}_crf"] != arrays[name]).sum()
    assert changed > 0


def test_the_crf_has_settings_of_its_own_where_they_are_given(
    data: Any, configure: Configure, checkpoint: Path, tmp_path: Path
) -> None:
    def arrays(own: dict[str, Any] | None) -> dict[str, np.ndarray]:
        config = from_mapping(
            {
                "compute": {"workers": 1},
                "retrain": {"crop": 48},
                "predict": {"scales": [1.0], "crf_settings": own},
            }
        )
        out = tmp_path / "p.h5"
        predict(config, data.manifest_dir, "val", (1, 1), checkpoint, out)
        with Shard(out, kind="predictions") as shard:
            assert shard.provenance.config["crf"]["gaussian_compat"] == (own or {}).get(
                "gaussian_compat", 3.0
            )
            return shard.read("v1").arrays

    plain, same = arrays(None), arrays({})
    other = arrays({"gaussian_compat": 300.0, "gaussian_sxy": 9.0})
    assert all((plain[name] == same[name]).all() for name in plain)
    assert (plain["single"] == other["single"]).all()
    assert (plain["single_crf"] != other["single_crf"]).any()
