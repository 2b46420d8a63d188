"""From photographs to masks with every family of image encoders, weights random."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import save_file

from tests.builders import clip_es_config
from tests.clip.families import DEPTH, EVA, FAMILIES, SIGLIP, small_clip, write_small
from wsss.artifacts.shard import Item, Shard
from wsss.artifacts.stage import STAGES
from wsss.cams import stage
from wsss.cams.patch_text import PatchText
from wsss.clip.calibration import check_linear
from wsss.clip.encoder import ClipEncoder
from wsss.clip.errors import UnsupportedEncoderError
from wsss.clip.input import EncoderInput
from wsss.clip.text.embeddings import TextBank
from wsss.clip.towers import ImageBlocks, TextTower
from wsss.config.cams import AffinityConfig, PatchTextConfig
from wsss.config.clip import ClipConfig
from wsss.config.model import Config
from wsss.data.ingest.stage import ingest
from wsss.masks import stage as masks_stage
from wsss.refine.excel.options import ExcelOptions
from wsss.refine.weclip.options import WeClipOptions

_PHOTOS = {"one": ((60, 90), "cat;dog"), "two": ((84, 56), "bird")}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    rows = ["image,tags"]
    for name, (size, tags) in _PHOTOS.items():
        coarse = random.integers(0, 255, (5, 5, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize(size[::-1]).save(folder / f"{name}.png")
        rows.append(f"{name}.png,{tags}")
    (folder / "tags.csv").write_text("\n".join(rows) + "\n")
    return folder


def config_of(photos: Path, folder: Path, name: str, **affinity: object) -> Config:
    """A configuration with the small model of a family, whose weights lie in a file."""
    weights = folder / f"{name}.safetensors"
    if not weights.exists():
        clip = small_clip(folder, name)
        tensors = {key: value.contiguous() for key, value in clip.model.state_dict().items()}
        save_file(tensors, weights)
    return clip_es_config(
        {
            "data": {
                "kind": "folder",
                "root": str(photos),
                "val_list": "",
                "backgrounds": ["sky"],
            },
            "clip": {"model": write_small(folder, name), "pretrained": str(weights)},
            "cams": {"splits": ["train"], "affinity": affinity},
            "masks": {"background": {"rule": "constant", "value": 0.5}},
            "compute": {"device": "cpu", "workers": 1},
        }
    )


def cams_of(config: Config, folder: Path) -> dict[str, Item]:
    """Run ingest, where it has not run, and cams."""
    manifest = folder / "manifest"
    if not manifest.exists():
        ingest(manifest, variant=config.variant, data=config.data, compute=config.compute)
    out = folder / "cams.h5"
    arguments = STAGES["cams"].arguments(config)
    stage.run(manifest, "train", (1, 1), out, folder / "cache", **arguments)
    with Shard(out, kind="cams") as shard:
        return {item.id: item for item in shard}


@pytest.mark.parametrize("name", FAMILIES)
def test_photographs_become_masks(photos: Path, tmp_path: Path, name: str) -> None:
    if name in SIGLIP:
        pytest.importorskip("transformers")
    config = config_of(photos, tmp_path, name)
    cams = cams_of(config, tmp_path)
    patch = 16 if "-16" in name else 14
    moved = 0.0
    for image, (size, tags) in _PHOTOS.items():
        grid = tuple(-(-side // patch) for side in size)
        plain, spread = cams[image].arrays["cam"], cams[image].arrays["cam_affinity"]
        assert plain.shape == spread.shape == (1 + tags.count(";"), *grid)
        for maps in (plain, spread):
            assert np.isfinite(maps).all()
            assert (maps.min((1, 2)) == 0).all()
            # With random weights the evidence for a class may be negative everywhere.
            assert set(maps.max((1, 2))) <= {0, 1}
        moved = max(moved, np.abs(plain.astype(float) - spread).max())
    assert moved > 0.05
    masks_stage.run(
        tmp_path / "manifest",
        tmp_path / "cams.h5",
        tmp_path / "masks.h5",
        tmp_path / "png",
        **STAGES["masks"].arguments(config),
    )
    with Shard(tmp_path / "masks.h5", kind="masks") as shard:
        labels = 0
        for item in shard:
            size, tags = _PHOTOS[item.id]
            assert item.arrays["label"].shape == size
            foreground = set(np.unique(item.arrays["label"])) - {0}
            assert foreground <= {index + 1 for index in item.attrs["classes"]}
            labels += len(foreground)
    assert labels > 0


@pytest.mark.parametrize("name", [EVA[1], "ViT-L-14"])
def test_blocks_follow_the_depth(photos: Path, tmp_path: Path, name: str) -> None:
    """Without a number, two thirds of the blocks give the affinity: four of these six."""
    default = cams_of(config_of(photos, tmp_path, name), tmp_path)
    four = cams_of(config_of(photos, tmp_path, name, last_blocks=4), tmp_path)
    six = cams_of(config_of(photos, tmp_path, name, last_blocks=6), tmp_path)
    runs = [
        [cams[image].arrays["cam_affinity"].tobytes() for image in _PHOTOS]
        for cams in (default, four, six)
    ]
    assert runs[0] == runs[1] != runs[2]


@pytest.mark.parametrize("name", [SIGLIP[0], EVA[0]])
def test_affinities_from_features(photos: Path, tmp_path: Path, name: str) -> None:
    """SigLIP's patches have cosines, but are not in the space of the texts."""
    if name in SIGLIP:
        pytest.importorskip("transformers")
    plain = cams_of(config_of(photos, tmp_path, name), tmp_path)
    cosine = cams_of(
        config_of(photos, tmp_path, name, kind="joined", joined_with="feature"), tmp_path
    )
    texts = config_of(photos, tmp_path, name, kind="joined", joined_with="distribution")
    if name in SIGLIP:
        with pytest.raises(UnsupportedEncoderError, match=r"kind distribution .* SigLIP embeds"):
            cams_of(texts, tmp_path)
    else:
        cams_of(texts, tmp_path)
    for image in _PHOTOS:
        maps = [cams[image].arrays["cam_affinity"] for cams in (plain, cosine)]
        assert np.isfinite(maps[1]).all()
        assert not np.array_equal(*maps)


def test_numbers_of_blocks_at_depths_of_12_and_24() -> None:
    numbers = [
        (AffinityConfig().blocks_of, (8, 16)),
        (PatchTextConfig().blocks_of, (5, 10)),
        (WeClipOptions().rfm_blocks_of, (6, 12)),
        (ExcelOptions().lvc_blocks_of, (6, 12)),
    ]
    for blocks_of, expected in numbers:
        assert (blocks_of(12), blocks_of(24)) == expected
        assert blocks_of(1) == 1
    assert WeClipOptions(rfm_blocks=10).rfm_blocks_of(24) == 10


def test_normalisation_is_that_of_the_encoder(tmp_path: Path) -> None:
    """Where it is the encoder's, SigLIP's pixels are in -1 … 1; imagenet is the same for all."""
    pytest.importorskip("transformers")
    photo = np.tile(np.array([0, 127.5, 255], np.uint8)[:, None, None], (1, 3, 3))
    clip = small_clip(tmp_path, SIGLIP[0])
    inputs = EncoderInput(ClipConfig(), clip=clip, device="cpu")
    assert inputs.normalization == ((0.5,) * 3, (0.5,) * 3)
    assert inputs.normalize(photo)[0, :, 0].tolist() == pytest.approx([-1, -1 / 255, 1])
    other = EncoderInput(ClipConfig(normalization="imagenet"), clip=clip, device="cpu")
    assert other.normalization[0] == (0.485, 0.456, 0.406)


def test_logit_scale_is_the_encoders_unless_it_is_given(tmp_path: Path) -> None:
    clip = small_clip(tmp_path, "ViT-L-14")
    assert EncoderInput(ClipConfig(), clip=clip, device="cpu").encoder.logit_scale == (
        clip.logit_scale
    )
    given = EncoderInput(ClipConfig(logit_scale=25), clip=clip, device="cpu")
    assert given.encoder.logit_scale == 25


def test_what_a_family_cannot_do_is_one_message(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    siglip = small_clip(tmp_path, SIGLIP[0])
    eva = small_clip(tmp_path, EVA[0])
    towers = [clip.model.get_submodule("visual") for clip in (siglip, eva)]
    nothing = TextBank(*(siglip.model.get_parameter("logit_scale").new_zeros(0, 48),) * 2)
    with pytest.raises(UnsupportedEncoderError, match=r"set cams\.source to grad_cam"):
        PatchText(ClipEncoder(towers[0]), nothing, PatchTextConfig())
    with pytest.raises(UnsupportedEncoderError, match="excel shifts the attention"):
        check_linear(ClipEncoder(towers[1]).blocks)
    check_linear(ClipEncoder(towers[0]).blocks)
    for tower in towers:
        with pytest.raises(UnsupportedEncoderError, match="only open_clip's VisionTransformer"):
            ImageBlocks(tower, (4, 4))
    with pytest.raises(UnsupportedEncoderError, match="weakclip learns prompts of a causal one"):
        TextTower(siglip.model, 8)
    assert len(ClipEncoder(towers[1]).blocks) == DEPTH
