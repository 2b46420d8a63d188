"""What the stages before `masks` would have written: manifest, photos and a shard of scores."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from tests.builders import SmallRun, clip_es_config, provenance, write_shard
from wsss.artifacts.digest import digest_file
from wsss.artifacts.shard import Item
from wsss.artifacts.stage import STAGES
from wsss.config.model import Config
from wsss.data.manifest import Sample
from wsss.masks import stage

NAMES = tuple(f"class {index}" for index in range(12))
IDS = ("plain", "with space", "münze 貓", "sub/folder/deep image", "sub/other", "untagged")
TAGS = ((0,), (3, 1), (11,), (2, 0, 7), (5,), ())


class MaskRun(SmallRun):
    """A small run on disk."""

    names = NAMES

    def item(self, sample: Sample, key: str = "made") -> Item:
        """Scores of one image: a smooth bump for each tag."""
        down, across = np.mgrid[:5, :6]
        bumps = [
            np.exp(-((down - 1 - tag % 3) ** 2 + (across - 1 - tag % 4) ** 2) / 3)
            for tag in sample.tags
        ]
        scores = np.array(bumps, np.float16).reshape(-1, 5, 6)
        size = [sample.height, sample.width]
        attrs = {"classes": list(sample.tags), "grid": [5, 6], "size": size, "split": sample.split}
        return Item(sample.id, {"score": scores}, attrs, key)

    def write_scores(
        self, name: str = "scores", items: Sequence[Item] | None = None, kind: str = "scores"
    ) -> Path:
        items = [self.item(sample) for sample in self.samples] if items is None else items
        origin = provenance("refine_apply", weights={"clip": "abc"})
        return write_shard(self.folder / f"{name}.h5", kind, items, origin)

    def config(self, workers: int = 1, **masks: object) -> Config:
        sections: Mapping[str, object] = {"masks": masks, "compute": {"workers": workers}}
        return clip_es_config(sections)

    def make(self, scores: Path, *, out: str = "out", **options: object) -> tuple[Path, Path]:
        """Run the stage; gives the shard and the folder of PNGs."""
        shard, png = self.folder / out / "masks.h5", self.folder / out / "png"
        arguments = STAGES["masks"].arguments(self.config(**options))
        stage.run(self.manifest_dir, scores, shard, png, **arguments)
        return shard, png


def make_run(folder: Path) -> MaskRun:
    """Six images of different sizes; the last has no tag."""
    generator = np.random.default_rng(3)
    samples = []
    for index, (image, tags) in enumerate(zip(IDS, TAGS, strict=True)):
        height, width = 24 + 3 * index, 40 - 5 * index
        colours = generator.integers(0, 256, (2, 3, 3), dtype=np.uint8)
        photo = Image.fromarray(colours).resize((width, height), Image.Resampling.BILINEAR)
        path = folder / "photos" / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        photo.save(path)
        samples.append(Sample(image, "train", path, width, height, digest_file(path), tags))
    run = MaskRun(folder, samples)
    run.write_manifest()
    return run
