"""Every CAM source on a pretended GPU: the maps are those of the CPU."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.builders import clip_es_config
from tests.dino.models import SECTION
from tests.gpu.pretend import PretendGpu
from wsss.artifacts.shard import Shard
from wsss.artifacts.stage import STAGES
from wsss.cams.stage import run
from wsss.config.base import overlay
from wsss.config.model import Config
from wsss.data.ingest.stage import ingest

SIZES = [(40, 56), (56, 40), (40, 56), (40, 56)]
TAGS = ["cat", "cat;dog", "bird;cat;dog", "dog"]
KINDS = ("attention", "distribution", "feature", "joined", "dino")
SOURCES: dict[str, dict[str, Any]] = {
    f"{source}, {kind}": {"source": source, "affinity": {"kind": kind}}
    for source in ("grad_cam", "patch_text")
    for kind in KINDS
} | {
    "grad_cam, views": {"scales": [1.0, 0.75], "flip": True, "affinity": {"kind": "joined"}},
    "grad_cam, no affinity": {"affinity": {"enabled": False}},
    "patch_text, as published": {"source": "patch_text", "patch_text": {"attention": "mixed"}},
}


@dataclass(frozen=True)
class OnGpu:
    """Maps that a pretended GPU made, and what that took."""

    shard: Path
    launches: int
    waits: dict[str, int]
    """By line, where there are any. Loading an encoder waits once, and is left out."""


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    for index, (height, width) in enumerate(SIZES):
        pixels = random.integers(0, 255, (height // 8, width // 8, 3), dtype=np.uint8)
        photo = Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)
        photo.save(folder / f"{index}.png")
    rows = [f"{index}.png,{tags}" for index, tags in enumerate(TAGS)]
    (folder / "tags.csv").write_text("\n".join(["image,tags", *rows]) + "\n")
    config = _config(folder)
    ingest(folder / "manifest", **STAGES["ingest"].arguments(config))
    return folder / "manifest"


def _config(photos: Path, **sections: Any) -> Config:
    data = {"kind": "folder", "root": str(photos), "val_list": "", "backgrounds": ["grass"]}
    small = {"data": data, "cams": {"splits": ["train"]}}
    small |= {"compute": {"device": "cpu", "workers": 1}, "dino": SECTION}
    return clip_es_config(overlay(small, sections))


@pytest.fixture(scope="module")
def on_gpu(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], OnGpu]:
    """Each of the sources on a pretended GPU, once."""

    @cache
    def compute(source: str) -> OnGpu:
        config = _config(manifest.parent, cams=SOURCES[source], compute={"device": "cuda"})
        with PretendGpu() as gpu:
            shard = _shard(config, manifest, tmp_path_factory.mktemp("gpu") / "gpu.h5")
        waits = {line: n for line, n in gpu.waits.items() if n and "encoder.py" not in line}
        return OnGpu(shard, gpu.launches.total(), waits)

    return compute


@pytest.mark.parametrize("source", SOURCES)
def test_maps_are_those_of_the_cpu(
    manifest: Path, on_gpu: Callable[[str], OnGpu], source: str, tmp_path: Path
) -> None:
    config = _config(manifest.parent, cams=SOURCES[source])
    on_cpu = _shard(config, manifest, tmp_path / "cpu.h5")
    assert on_gpu(source).launches > 100
    _assert_close(on_gpu(source).shard, on_cpu)


@pytest.mark.parametrize("source", ["grad_cam", "patch_text"])
@pytest.mark.parametrize("kind", KINDS[1:])
def test_no_kind_of_affinity_waits_for_the_gpu(
    on_gpu: Callable[[str], OnGpu], source: str, kind: str
) -> None:
    assert on_gpu(f"{source}, {kind}").waits == on_gpu(f"{source}, attention").waits


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["attention", "distribution", "joined"])
def test_imported_maps_are_spread_as_on_the_cpu(manifest: Path, tmp_path: Path, kind: str) -> None:
    seeds = tmp_path / "seeds"
    seeds.mkdir()
    for index, (height, width) in enumerate(SIZES):
        seed = np.zeros((height, width), np.float32)
        seed[8:24, 8:24] = 0.8
        np.save(seeds / f"{index}.npy", {index % 3: seed}, allow_pickle=True)
    cams: dict[str, Any] = {"source": "external", "affinity": {"kind": kind}}
    cams["external"] = {"path": str(seeds), "affinity": True}
    on_cpu = _shard(_config(manifest.parent, cams=cams), manifest, tmp_path / "cpu.h5")
    with PretendGpu():
        config = _config(manifest.parent, cams=cams, compute={"device": "cuda"})
        on_gpu = _shard(config, manifest, tmp_path / "gpu.h5")
    _assert_close(on_gpu, on_cpu)


def _shard(config: Config, manifest: Path, out: Path) -> Path:
    run(manifest, "train", (1, 1), out, out.parent / "cache", **STAGES["cams"].arguments(config))
    return out


def _assert_close(actual: Path, expected: Path) -> None:
    with Shard(actual, kind="cams") as first, Shard(expected, kind="cams") as second:
        assert first.ids == second.ids
        for item in first:
            for name, array in second.read(item.id).arrays.items():
                np.testing.assert_allclose(item.arrays[name], array, atol=2e-3)
