"""Softmax Grad-CAM and class-aware affinity against the published CLIP-ES (``clip_es.npz``)."""

import copy
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.golden.closeness import FLOAT32, HALF, Arrays, assert_close_rel
from wsss.cams.affinity import balance, propagate_maps
from wsss.cams.boxes import box_masks
from wsss.cams.grad_cam import GradCam, Gradient, grad_cam
from wsss.cams.maps import resize_maps, scale_maps
from wsss.clip.encoder import ClipEncoder
from wsss.clip.images import input_size, normalize_image, resize_image
from wsss.clip.load import LoadedClip, load_clip
from wsss.clip.position import Rounding, resize_positions
from wsss.clip.text.embeddings import TextBank, encode_tokens

GOLDEN = "clip_es.npz"
ATTENTION_BLOCKS = 8


@dataclass(frozen=True)
class Case:
    """One image of the file."""

    arrays: Arrays
    prefix: str
    device: torch.device

    def __getitem__(self, name: str) -> np.ndarray:
        return self.arrays[f"{self.prefix}/{name}"]

    def tensor(self, name: str) -> torch.Tensor:
        return torch.from_numpy(self[name]).to(self.device)

    def __contains__(self, name: str) -> bool:
        return f"{self.prefix}/{name}" in self.arrays

    def thresholds(self) -> list[tuple[str, float]]:
        """Suffixes such as ``t04`` and the threshold that they name."""
        suffixes = {
            m[1]
            for key in self.arrays
            if (m := re.fullmatch(rf"{self.prefix}/box_mask_t(\d+)", key))
        }
        return [
            (f"t{digits}", int(digits) / 10 ** (len(digits) - 1)) for digits in sorted(suffixes)
        ]


@pytest.fixture
def cases(arrays: Arrays, device: torch.device) -> list[Case]:
    prefixes = sorted({key.split("/")[0] for key in arrays if re.match(r"img\d+/", key)})
    assert prefixes, "the golden file holds no image"
    return [Case(arrays, prefix, device) for prefix in prefixes]


@pytest.fixture(scope="module")
def clip(golden_dir: Path) -> LoadedClip:
    return load_clip("from-weights", str(golden_dir / "clip_tiny.safetensors"))


@pytest.fixture
def encoders(clip: LoadedClip, device: torch.device) -> Callable[[Rounding], ClipEncoder]:
    def build(rounding: Rounding) -> ClipEncoder:
        visual = copy.deepcopy(clip.model.get_submodule("visual"))
        scale = clip.logit_scale
        return ClipEncoder(visual, logit_scale=scale, rounding=rounding, device=device)

    return build


@pytest.fixture
def published(encoders: Callable[[Rounding], ClipEncoder]) -> ClipEncoder:
    return encoders("float16")


@pytest.fixture
def bank(arrays: Arrays, device: torch.device) -> TextBank:
    texts = (torch.from_numpy(arrays[f"{kind}_text"]) for kind in ("fg", "bg"))
    return TextBank(*texts).to(device)


def run(
    case: Case, encoder: ClipEncoder, bank: TextBank, gradient: Gradient = "softmax"
) -> GradCam:
    classes = case["class_ids"].tolist()
    return grad_cam(
        encoder,
        case.tensor("image"),
        [classes],
        bank,
        gradient=gradient,
        attention_blocks=ATTENTION_BLOCKS,
    )


def test_text_features(arrays: Arrays, clip: LoadedClip) -> None:
    for kind in ("fg", "bg"):
        tokens = torch.from_numpy(arrays[f"{kind}_tokens"]).long()
        assert_close_rel(encode_tokens(clip.model, tokens), arrays[f"{kind}_text"], FLOAT32, kind)


def test_preprocessing_is_exact(
    cases: list[Case], clip: LoadedClip, published: ClipEncoder
) -> None:
    for case in cases:
        photograph = case["image_uint8"]
        size = input_size(*photograph.shape[:2], published.patch)
        image = normalize_image(resize_image(photograph, size), clip.mean, clip.std)
        np.testing.assert_array_equal(image.unsqueeze(0).numpy(), case["image"])


def test_positional_table(cases: list[Case], clip: LoadedClip, published: ClipEncoder) -> None:
    visual = clip.model.get_submodule("visual")
    for case in cases:
        height, width = (side // published.patch[0] for side in case["image"].shape[-2:])
        side = int((len(visual.get_parameter("positional_embedding")) - 1) ** 0.5)
        table = resize_positions(
            visual.get_parameter("positional_embedding"), (side, side), (height, width), "float16"
        )
        assert_close_rel(table, case["pos_embed"], FLOAT32, "pos_embed")


def test_features_and_attention_of_every_block(cases: list[Case], published: ClipEncoder) -> None:
    last = published.depth - 1
    for case in cases:
        encoding = published.run(
            case.tensor("image"), outputs_of=[last - 1], attention_of=range(published.depth)
        )
        assert_close_rel(
            encoding.outputs[last - 1][0], case["features_block11"], FLOAT32, "features"
        )
        attention = torch.cat([encoding.attention[index] for index in range(published.depth)])
        assert_close_rel(attention, case["attention"], FLOAT32, "attention")
        block = published.last_block(encoding.outputs[last - 1])
        assert_close_rel(
            block.attention.mean(1)[0], case["attention"][-1], FLOAT32, "last attention"
        )
        assert_close_rel(block.tokens, encoding.tokens, FLOAT32, "tokens of the last block")


def test_published_grad_cam(cases: list[Case], published: ClipEncoder, bank: TextBank) -> None:
    for case in cases:
        result = run(case, published, bank)
        block = published.last_block(
            published.run(case.tensor("image"), until=published.depth - 1).tokens
        )
        grid = case["cam"].shape[1:]
        count = len(case["class_ids"])
        assert_close_rel(
            block.normed[0, 1:].T.unflatten(1, grid), case["grad_activation"], FLOAT32, "activation"
        )
        assert_close_rel(result.probabilities, case["probs"][0, :count], FLOAT32, "probs")
        assert_close_rel(
            result.channel_weights, case["grad_channel_weights"], FLOAT32, "channel weights"
        )
        assert_close_rel(result.maps, case["cam_unnormalised"], FLOAT32, "raw CAM")
        cam = scale_maps(result.maps.relu(), "guarded_twice")
        assert_close_rel(cam, case["cam"], FLOAT32, "CAM")
        size = case["image_uint8"].shape[:2]
        assert_close_rel(
            resize_maps(cam, size), case["cam_image_size"], FLOAT32, "CAM at image size"
        )


def test_float32_positions(
    cases: list[Case], encoders: Callable[[Rounding], ClipEncoder], bank: TextBank
) -> None:
    encoder = encoders("float32")
    for case in cases:
        features = encoder.run(case.tensor("image"), until=encoder.depth - 1).tokens[0]
        assert_close_rel(features, case["alt_pos_fp32/features_block11"], FLOAT32, "features")
        cam = scale_maps(run(case, encoder, bank).maps.relu(), "guarded_twice")
        assert_close_rel(cam, case["alt_pos_fp32/cam"], FLOAT32, "CAM")


def test_margin_agrees_with_published(
    cases: list[Case], published: ClipEncoder, bank: TextBank
) -> None:
    for case in cases:
        margin = scale_maps(run(case, published, bank, "margin").maps.relu())
        assert_close_rel(margin, case["cam"], 5e-5, "margin CAM")


def test_sinkhorn_and_transition(cases: list[Case], published: ClipEncoder, bank: TextBank) -> None:
    for case in cases:
        stored = case.tensor("attention")[-ATTENTION_BLOCKS:].mean(0, keepdim=True)
        computed = run(case, published, bank).attention
        for attention in (stored, computed):
            affinity = balance(attention[:, 1:, 1:])
            assert_close_rel(affinity.matrix()[0], case["sinkhorn"], FLOAT32, "sinkhorn")
            unit = torch.eye(attention.shape[-1] - 1, device=case.device)
            everything = affinity.propagate(unit.unsqueeze(0))
            assert_close_rel(everything[0], case["transition"], FLOAT32, "transition")


def test_box_masks_are_exact(cases: list[Case]) -> None:
    for case, suffix, threshold in every_threshold(cases):
        masks = box_masks(case.tensor("cam"), threshold, "exclusive")
        np.testing.assert_array_equal(masks.cpu().numpy(), case[f"box_mask_{suffix}"].astype(bool))


def test_refined_maps_end_to_end(cases: list[Case], published: ClipEncoder, bank: TextBank) -> None:
    for case, suffix, threshold in every_threshold(cases):
        result = run(case, published, bank)
        cam = scale_maps(result.maps.relu(), "guarded_twice")
        masks = box_masks(cam, threshold, "exclusive")
        np.testing.assert_array_equal(masks.cpu().numpy(), case[f"box_mask_{suffix}"].astype(bool))
        refined = propagate_maps(
            balance(result.attention[:, 1:, 1:]),
            cam,
            result.image_index,
            box_threshold=threshold,
            box_edge="exclusive",
        )
        assert_close_rel(refined, case[f"cam_refined_{suffix}"], FLOAT32, "refined")
        if f"cam_refined_image_size_{suffix}" not in case:
            continue
        size = case["image_uint8"].shape[:2]
        scaled = scale_maps(refined, "guarded_twice")
        large = resize_maps(scaled, size)
        assert_close_rel(
            large, case[f"cam_refined_image_size_{suffix}"], FLOAT32, "refined at image size"
        )
        assert_close_rel(large.half(), case[f"saved_half_{suffix}"], HALF, "saved")
        # Our shards keep the grid map in half precision and leave the resizing to the reader.
        from_grid = resize_maps(scaled.half().float(), size)
        assert_close_rel(from_grid, case[f"saved_half_{suffix}"], HALF, "stored on the grid")


def every_threshold(cases: list[Case]) -> Iterator[tuple[Case, str, float]]:
    """Every image with every threshold that the file has for it."""
    triples = [(case, suffix, value) for case in cases for suffix, value in case.thresholds()]
    assert triples, "the golden file holds no box mask"
    yield from triples
