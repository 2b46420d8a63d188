"""A tiny data set whose labels can be read off the photos, and its mask shards."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.builders import clip_es_config, provenance, write_manifest_folder, write_shard
from tests.retrain.small_networks import small_config
from tests.retrain.trainings import Killed
from wsss.artifacts.digest import digest_file
from wsss.artifacts.shard import Item
from wsss.config.model import Config
from wsss.config.retrain import RetrainConfig
from wsss.data.datasets.classes import ClassList
from wsss.data.manifest import Sample
from wsss.retrain import recipe, segmenter
from wsss.retrain.runner import ProgressHook

CLASSES = ClassList("tiny", ("cat", "boat", "tree"), ("cat", "boat", "tree"), ("sky",))
PROVENANCE = provenance("masks")
GREY = np.array([20, 90, 160, 230], np.uint8)
"""Grey level of the pixels of each label."""


def scene(index: int, height: int, width: int) -> np.ndarray:
    """A label map [H, W]: background, and a rectangle of one class."""
    random = np.random.default_rng(index)
    mask = np.zeros((height, width), np.uint8)
    top, left = random.integers(2, 8, 2)
    mask[top : height - 6, left : width - 9] = 1 + index % 3
    return mask


@dataclass
class Data:
    """The set on disk."""

    root: Path
    samples: list[Sample] = field(default_factory=list)
    truth: dict[str, np.ndarray] = field(default_factory=dict)
    classes: ClassList = CLASSES
    grey: np.ndarray = field(default_factory=lambda: GREY)

    @property
    def manifest_dir(self) -> Path:
        return self.root / "manifest"

    def add(self, image: str, split: str, height: int, width: int) -> None:
        index = len(self.samples)
        mask = scene(index, height, width)
        path = self.root / f"{image}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.repeat(GREY[mask][..., None], 3, axis=2)).save(path)
        digest = digest_file(path)
        self.samples.append(Sample(image, split, path, width, height, digest, (index % 3,)))
        self.truth[image] = mask

    def masks(
        self,
        parts: int = 2,
        *,
        kind: str = "masks",
        change: Callable[[np.ndarray], Any] | None = None,
    ) -> list[Path]:
        """Shards of the train split; ``change`` edits a target in place or returns another."""
        train = [sample for sample in self.samples if sample.split == "train"]
        paths = []
        for part in range(parts):
            path = self.root / f"{kind}-{part + 1}of{parts}.h5"
            items = []
            for sample in train[part::parts]:
                target = self.truth[sample.id].copy()
                changed = change(target) if change else None
                target = target if changed is None else changed
                arrays = {"label": self.truth[sample.id], "train": target}
                attrs = {"coverage": float(np.mean(np.asarray(target) != 255))}
                items.append(Item(sample.id, arrays, attrs))
            paths.append(write_shard(path, kind, items, PROVENANCE))
        return paths

    def save(self) -> None:
        write_manifest_folder(self.manifest_dir, CLASSES, self.samples)


def make_data(root: Path) -> Data:
    """Six training images and four others, one of them smaller than the networks take."""
    data = Data(root)
    train = {
        "a": (64, 80), "b c": (70, 60), "sub/d": (64, 80),
        "é": (90, 50), "e": (48, 48), "f": (80, 64),
    }  # fmt: skip
    val = {"v1": (40, 56), "v2": (56, 40), "v3": (40, 56), "tiny": (9, 21)}
    for split, sizes in {"train": train, "val": val}.items():
        for image, (height, width) in sizes.items():
            data.add(image, split, height, width)
    data.save()
    return data


def build_config(
    *,
    seed: int = 0,
    workers: int = 1,
    compute_batch: int = 8,
    predict: dict[str, Any] | None = None,
    **retrain: Any,
) -> Config:
    """A configuration with few, small steps."""
    small = {"crop": 48, "batch": 2, "iterations": 4, "warmup": 1, "checkpoint_every": 2}
    small["threads"] = 1  # tiny tensors gain nothing from threads
    # not as the demo has them
    names = ("clip_lr", "clip_stem", "label_smoothing", "color", "cat_max_ratio", "scale_range")
    defaults = {name: RetrainConfig.model_fields[name].default for name in names}
    return clip_es_config(
        {
            "seed": seed,
            "compute": {"device": "cpu", "workers": workers, "batch": compute_batch},
            "retrain": defaults | small | retrain,
            "predict": {"scales": [0.75, 1.0, 1.5], "crf": False} | (predict or {}),
        }
    )


@pytest.fixture
def data(tmp_path: Path) -> Data:
    return make_data(tmp_path / "set")


@pytest.fixture
def configure() -> Callable[..., Config]:
    return build_config


@pytest.fixture(scope="module")
def small_networks() -> Iterator[None]:
    """Stages build small networks; mmengine's configs are written without making them pretty."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (recipe, segmenter):
            patch.setattr(module, "model_config", small_config)
        patch.setattr("yapf.yapflib.yapf_api.FormatCode", lambda text, **_: (text, False))
        yield


@pytest.fixture
def kill_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int | None], None]:
    """Interrupt training when a step begins."""
    before = ProgressHook.before_train_iter

    def set_step(step: int | None) -> None:
        def hook(self: ProgressHook, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
            if runner.iter == step:
                raise Killed
            before(self, runner, batch_idx, data_batch)

        monkeypatch.setattr(ProgressHook, "before_train_iter", hook)

    return set_step


@pytest.fixture(autouse=True)
def _one_thread(one_thread: None) -> None:
    """Several test runs share a machine."""
