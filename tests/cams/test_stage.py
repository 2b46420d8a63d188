"""The stage: content does not depend on batch, order, threads or shards; reuse; precision."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.builders import clip_es_config
from tests.dino.models import SECTION, TINY
from wsss.artifacts.shard import Item, Shard
from wsss.artifacts.stage import STAGES
from wsss.cams import clip_sources, stage
from wsss.cams.clip_sources import clip_cams
from wsss.clip.input import EncoderInput
from wsss.clip.text.embeddings import text_bank
from wsss.compute.threads import fixed_threads
from wsss.config.model import Config
from wsss.data.images.read import read_image
from wsss.data.ingest.stage import ingest
from wsss.data.manifest_folder import load
from wsss.pipeline.stages import entry_modules

SIZES = [(40, 56), (56, 40), (40, 56), (33, 47), (90, 90), (8, 70), (40, 56)]
TAGS = ["cat", "cat;dog", "dog", "bird;cat;dog", "bird", "dog", "bird"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    rows = ["image,tags"]
    for index, (size, tags) in enumerate(zip(SIZES, TAGS, strict=True)):
        pixels = random.integers(0, 255, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((size[1] * 2, size[0] * 2)).save(folder / f"p {index}.png")
        rows.append(f"p {index}.png,{tags}")
    (folder / "tags.csv").write_text("\n".join(rows) + "\n")
    return folder


def _config(photos: Path, **compute: int) -> Config:
    return clip_es_config(
        {
            "data": {
                "kind": "folder",
                "root": str(photos),
                "val_list": "",
                "backgrounds": ["grass"],
            },
            "cams": {"splits": ["train"]},
            "compute": {"device": "cpu", "workers": 1} | compute,
        }
    )


def _ingest(config: Config, out: Path) -> None:
    ingest(out, variant=config.variant, data=config.data, compute=config.compute)


@pytest.fixture(scope="module")
def manifest(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("manifest")
    _ingest(_config(photos), folder)
    return folder


def _run(config: Config, manifest: Path, folder: Path, shards: int = 1) -> dict[str, Item]:
    items = {}
    for shard_index in range(1, shards + 1):
        out = folder / f"{shard_index}-of-{shards}.h5"
        arguments = STAGES["cams"].arguments(config)
        stage.run(manifest, "train", (shard_index, shards), out, folder / "cache", **arguments)
        with Shard(out, kind="cams") as shard:
            items |= {item.id: item for item in shard}
    return items


def _bytes(items: dict[str, Item]) -> dict[str, list[bytes]]:
    return {
        name: [item.arrays[key].tobytes() for key in sorted(item.arrays)]
        for name, item in sorted(items.items())
    }


@pytest.fixture(scope="module")
def items(
    photos: Path, manifest: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Item]:
    """One shard, computed on one thread."""
    with fixed_threads(1):
        return _run(_config(photos, batch=1), manifest, tmp_path_factory.mktemp("cams"))


@pytest.mark.slow
@pytest.mark.parametrize(("batch", "shards"), [(8, 2), (3, 5)])
def test_content_does_not_depend_on_batch_shards_or_threads(
    photos: Path, manifest: Path, items: dict[str, Item], tmp_path: Path, batch: int, shards: int
) -> None:
    config = _config(photos, batch=batch)
    with fixed_threads(2):
        assert _bytes(_run(config, manifest, tmp_path, shards)) == _bytes(items)
    assert len(items) == len(SIZES)


def test_item_holds_present_classes_on_the_grid(items: dict[str, Item]) -> None:
    for item in items.values():
        cam, cam_affinity = item.arrays["cam"], item.arrays["cam_affinity"]
        height, width = item.attrs["size"]
        assert item.attrs["grid"] == [-(-height // 8), -(-width // 8)]
        assert cam.shape == cam_affinity.shape == (len(item.attrs["classes"]), *item.attrs["grid"])
        assert cam.dtype == cam_affinity.dtype == np.float16
        for maps in (cam, cam_affinity):
            assert maps.min() >= 0
            assert maps.max() <= 1
            largest = maps.reshape(len(maps), -1).max(1)
            assert ((largest > 0.99) | (largest == 0)).all()


def test_unchanged_images_are_reused_and_new_ones_computed(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "photos"
    shutil.copytree(photos, folder)
    listed = (folder / "tags.csv").read_text().splitlines()
    new = folder / f"p {len(SIZES) - 1}.png"
    new.rename(tmp_path / new.name)
    (folder / "tags.csv").write_text("\n".join(listed[:-1]) + "\n")
    _ingest(_config(folder), tmp_path / "manifest")
    first = _run(_config(folder), tmp_path / "manifest", tmp_path / "cams")
    (tmp_path / "cams/1-of-1.h5").unlink()
    (tmp_path / new.name).rename(new)
    (folder / "tags.csv").write_text("\n".join(listed) + "\n")
    _ingest(_config(folder), tmp_path / "manifest")
    computed: list[str] = []
    original = stage.make_source

    def spy(*arguments: object, **settings: object) -> object:
        source = original(*arguments, **settings)
        maps = source.maps
        source.maps = lambda samples: (computed.extend(s.id for s in samples), maps(samples))[1]
        return source

    monkeypatch.setattr(stage, "make_source", spy)
    second = _run(_config(folder), tmp_path / "manifest", tmp_path / "cams")
    assert len(computed) == 1
    assert set(second) - set(first) == set(computed)
    assert {k: v for k, v in _bytes(second).items() if k in first} == _bytes(first)


def test_without_the_affinity_the_cams_are_the_same(
    photos: Path, manifest: Path, items: dict[str, Item], tmp_path: Path
) -> None:
    cams = clip_es_config({"cams": {"affinity": {"enabled": False}}}).cams
    plain = _run(_config(photos).model_copy(update={"cams": cams}), manifest, tmp_path)
    assert all("cam_affinity" not in item.arrays for item in plain.values())
    for name, item in plain.items():
        # Without returned attention torch uses another kernel, which rounds differently.
        np.testing.assert_allclose(item.arrays["cam"], items[name].arrays["cam"], atol=2e-3)


def test_an_array_gives_the_maps_of_the_stage(photos: Path, items: dict[str, Item]) -> None:
    """Without configuration, cache or manifest: a photo and the names of its classes."""
    config = _config(photos)
    inputs = EncoderInput(config.clip, device="cpu")
    bank = text_bank(inputs.clip, ["cat", "dog"], ["grass"], config.clip.template)
    images = inputs.prepare(read_image(photos / "p 1.png"))[None]
    cams, propagated = clip_cams(inputs.encoder, [images], [[0, 1]], bank, config.cams)
    for name, maps in (("cam", cams.maps), ("cam_affinity", propagated)):
        np.testing.assert_allclose(maps.numpy(), items["p 1"].arrays[name], atol=2e-3)


AFFINITIES: dict[str, dict[str, object]] = {
    "attention": {},
    "distribution": {"kind": "distribution"},
    "feature": {"kind": "feature"},
    "joined": {"kind": "joined"},
    "dino": {"kind": "dino", "exponent": 2.0},
}


def _with_affinity(photos: Path, kind: str, **cams: object) -> Config:
    changed = clip_es_config({"cams": {"affinity": AFFINITIES[kind]} | cams, "dino": SECTION})
    return _config(photos).model_copy(update={"cams": changed.cams, "dino": changed.dino})


@pytest.mark.parametrize("kind", ["distribution", "feature", "joined", "dino"])
def test_maps_of_each_kind_do_not_depend_on_batch_or_shards(
    photos: Path, manifest: Path, items: dict[str, Item], tmp_path: Path, kind: str
) -> None:
    config = _with_affinity(photos, kind)
    with fixed_threads(1):
        whole = _run(config, manifest, tmp_path / "whole")
    with fixed_threads(2):
        assert _bytes(_run(config, manifest, tmp_path / "parts", 3)) == _bytes(whole)
    for name, item in whole.items():
        maps = item.arrays["cam_affinity"]
        assert np.isfinite(maps).all()
        assert maps.shape == items[name].arrays["cam_affinity"].shape
    assert any((i.arrays["cam_affinity"] != items[n].arrays["cam_affinity"]).any()
               for n, i in whole.items())  # fmt: skip


@pytest.mark.parametrize("source", ["grad_cam", "external"])
@pytest.mark.parametrize("kind", AFFINITIES)
def test_a_new_class_changes_maps_that_compare_with_all_classes_alone(
    photos: Path, tmp_path: Path, kind: str, source: str
) -> None:
    """The distributions run over all classes; attention and cosines know none."""
    folder, keys = tmp_path / "photos", []
    shutil.copytree(photos, folder)
    cams: dict[str, object] = {}
    if source == "external":
        seed = np.full((8, 8), 0.5, np.float32)
        for photo in folder.glob("*.png"):
            np.save(photo.with_suffix(".npy"), {0: seed}, allow_pickle=True)
        external = {"path": str(folder), "affinity": True}
        cams = {"source": "external", "external": external}
    config = _with_affinity(folder, kind, **cams)
    listed = (folder / "tags.csv").read_text().splitlines()
    for index, tags in enumerate(["cat", "cat;zebra"]):
        (folder / "tags.csv").write_text("\n".join([*listed[:3], f"p 2.png,{tags}"]) + "\n")
        out = tmp_path / f"manifest {index}"
        _ingest(config, out)
        manifest, classes = load(out)
        sections = STAGES["cams"].arguments(config)
        source = stage.make_source(classes, tmp_path / "cache", **sections)
        keys.append({sample.id: source.key(sample) for sample in manifest})
    assert classes.names[-1] == "zebra"
    compares = kind in ("distribution", "joined")
    for image in ("p 0", "p 1"):
        assert (keys[0][image] != keys[1][image]) == compares


def test_maps_of_a_new_source_depend_on_all_texts(photos: Path, manifest: Path) -> None:
    """It may compare all classes; Grad-CAM reads its own alone."""
    config = _config(photos)
    samples, classes = load(manifest)
    changed = replace(classes, prompts=(*classes.prompts[:-1], "a changed prompt"))
    sections = STAGES["cams"].arguments(config)
    for name, is_fine in (("grad_cam", True), ("new", False)):
        cams = config.cams.model_copy(update={"source": name})
        sources = [
            stage.make_source(each, manifest / "cache", **sections | {"cams": cams})
            for each in (classes, changed)
        ]
        others = [s for s in samples if len(classes.prompts) - 1 not in s.tags]
        assert others
        assert all((sources[0].key(s) == sources[1].key(s)) == is_fine for s in others)


@pytest.mark.parametrize(("kind", "lacks"), [("attention", "attention"), ("joined", "features")])
def test_a_source_without_what_the_affinity_reads_is_refused(
    photos: Path, monkeypatch: pytest.MonkeyPatch, kind: str, lacks: str
) -> None:
    original = clip_sources.fused_evidence
    monkeypatch.setattr(
        clip_sources,
        "fused_evidence",
        lambda *given, **named: replace(original(*given, **named), **{lacks: None}),
    )
    config = _with_affinity(photos, kind)
    inputs = EncoderInput(config.clip, device="cpu")
    bank = text_bank(inputs.clip, ["cat", "dog"], ["grass"], config.clip.template)
    images = inputs.prepare(read_image(photos / "p 1.png"))[None]
    with pytest.raises(ValueError, match=f"returned Evidence without {lacks}, which"):
        clip_cams(inputs.encoder, [images], [[0, 1]], bank, config.cams)


@pytest.mark.parametrize("source", ["grad_cam", "external"])
def test_a_second_encoder_is_read_only_where_the_affinity_compares_it(
    photos: Path, manifest: Path, tmp_path: Path, source: str
) -> None:
    """Its section and weights are in the provenance then, and change the keys."""
    cams: dict[str, object] = {}
    if source == "external":
        for photo in photos.glob("*.png"):
            seed = np.full(Image.open(photo).size[::-1], 0.5, np.float32)
            np.save(tmp_path / f"{photo.stem}.npy", {0: seed}, allow_pickle=True)
        cams = {"source": source, "external": {"path": str(tmp_path), "affinity": True}}
    other = {"model": str(TINY), "pretrained": "random", "precision": "bfloat16"}
    stored = []
    for kind in ("feature", "dino"):
        config = _with_affinity(photos, kind, **cams)
        changed = config.model_copy(update={"dino": type(config.dino)(**other)})
        state = [STAGES["cams"].watched(c) for c in (config, changed)]
        assert (state[0] != state[1]) == (kind == "dino")
        assert ("wsss.dino.load" in entry_modules("cams", config)) == (kind == "dino")
        out = tmp_path / kind
        _run(config, manifest, out)
        with Shard(out / "1-of-1.h5", kind="cams") as shard:
            stored.append(shard.provenance)
    assert [set(p.weights) for p in stored] == [{"clip"}, {"clip", "dino"}]
    assert ["dino" in p.config for p in stored] == [False, True]
    assert stored[0].code != stored[1].code
