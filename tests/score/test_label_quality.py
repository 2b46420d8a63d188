"""Labels that supervised a refiner, scored step by step."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.refine.chain import Chain
from wsss.artifacts.stage import STAGES
from wsss.compute import seeding
from wsss.config.model import Config
from wsss.refine.excel.method import Excel
from wsss.refine.load import load_state
from wsss.refine.training.snapshots import kept_snapshots
from wsss.score.label_quality import run
from wsss.score.truth.errors import TruthError

TRAIN = {"iterations": 4, "warmup": 1, "batch": 3, "checkpoint_every": 2, "crop": 64, "lr": 0.02}
REFINE = {
    "method": "excel",
    "train": TRAIN | {"snapshots_every": 2},
    "excel": {"width": 16, "lvc_start": 2},
}
CAMS = {"source": "patch_text", "affinity": {"last_blocks": 6}}
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    return Chain(tmp_path_factory.mktemp("chain"), REFINE, cams=CAMS)


@pytest.fixture(scope="module")
def taught(chain: Chain) -> tuple[Path, list[torch.Tensor]]:
    """A checkpoint, and the labels that each step of its training learned."""
    learned, losses = [], Excel.losses

    def spied(self: Excel, logits: Any, labels: Any, *others: Any) -> Any:
        learned.append(labels.clone())
        return losses(self, logits, labels, *others)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Excel, "losses", spied)
        checkpoint = chain.train(chain.config(), chain.folder / "run")
    return checkpoint, learned


def _score(chain: Chain, config: Config, checkpoint: Path, out: Path, images: int = 6) -> None:
    arguments = STAGES["refine_labels"].arguments(config)
    seeds = [chain.seeds()] if config.refine.needs_seeds else []
    paths = (chain.manifest, [chain.cams["train"]], checkpoint, out / "l.csv", out / "l.png")
    run(*paths, chain.folder / "cache", seeds, images=images, **arguments)


def _truth(chain: Chain) -> None:
    """Give the masks back, which trainings do without."""
    if (chain.folder / "hidden").exists():
        (chain.folder / "hidden").rename(chain.folder / "data/SegmentationClass")


def test_the_labels_are_those_that_the_training_learned(
    chain: Chain, taught: tuple[Path, list[torch.Tensor]]
) -> None:
    checkpoint, learned = taught
    refiner = chain.refiner(chain.config())
    batches = list(chain.stream(chain.config(), refiner).batches(0))
    for step, path in kept_snapshots(checkpoint).items():
        if step < len(batches):
            load_state(refiner, path, "excel")
            refiner.train_mode(True)
            torch.manual_seed(seeding.seed_number(0, seeding.NETWORK, 1 + step))
            assert torch.equal(refiner.supervision(step, batches[step]), learned[step])
    assert list(kept_snapshots(checkpoint)) == [0, 2, 4]


def test_scores_are_those_of_a_count_by_hand(
    chain: Chain,
    taught: tuple[Path, list[torch.Tensor]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _truth(chain)
    seen: dict[int, list[tuple[str, Any, np.ndarray]]] = {}
    supervision = Excel.supervision

    def spied(self: Excel, step: int, batch: Any) -> torch.Tensor:
        labels = supervision(self, step, batch)
        cuts = zip(batch.cuts, labels.numpy(), strict=True)
        seen.setdefault(step, []).extend((image, crop, label) for (image, crop), label in cuts)
        return labels

    monkeypatch.setattr(Excel, "supervision", spied)
    _score(chain, chain.config(), taught[0], tmp_path)
    with (tmp_path / "l.csv").open() as stream:
        rows = {int(row["step"]): row for row in csv.DictReader(stream)}
    assert list(rows) == list(seen) == [0, 2, 4]
    images = [[image for image, _, _ in crops] for crops in seen.values()]
    assert len(set(images[0])) == 6  # each image once
    assert images[0] == images[1] == images[2]
    for step, crops in seen.items():
        pairs, pixels = [], 0
        for image, crop, label in crops:
            path = chain.folder / f"data/SegmentationClass/{image}.png"
            truth = crop.labels(np.array(Image.open(path)), outside=255)
            pixels += (truth != 255).sum()
            counted = (truth != 255) & (label != 255)
            pairs.append(np.stack([truth[counted], label[counted]]))
        true, predicted = np.concatenate(pairs, axis=1)
        ious = [
            ((true == k) & (predicted == k)).sum() / ((true == k) | (predicted == k)).sum()
            for k in range(11)
            if ((true == k) | (predicted == k)).any()
        ]
        assert float(rows[step]["miou"]) == pytest.approx(np.mean(ious))
        assert float(rows[step]["labelled"]) == pytest.approx(len(true) / pixels)
        assert rows[step]["images"] == "6"
    assert rows[2]["miou"] != rows[4]["miou"]  # what was learned changes them
    assert (tmp_path / "l.png").read_bytes().startswith(b"\x89PNG")


def test_seeds_stay_what_they_are(chain: Chain, tmp_path: Path) -> None:
    """WeakCLIP learns labels that were made before."""
    steps = {"iterations": 2, "snapshots_every": 2}
    config = chain.config(refine={"method": "weakclip", "train": steps})
    checkpoint = chain.train(config, tmp_path)
    _truth(chain)
    _score(chain, config, checkpoint, tmp_path, images=100)
    with (tmp_path / "l.csv").open() as stream:
        first, last = csv.DictReader(stream)
    assert (first.pop("step"), last.pop("step")) == ("0", "2")
    assert first == last
    assert first["images"] == "6"  # of seven: whole batches of three


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        (np.zeros((8, 9), np.uint8), "8"),
        (None, "has label 11, but the class list ends at 10; correct the mask or data.classes"),
    ],
)
def test_truth_that_does_not_fit_is_named(
    chain: Chain,
    taught: tuple[Path, list[torch.Tensor]],
    tmp_path: Path,
    mask: np.ndarray | None,
    expected: str,
) -> None:
    _truth(chain)
    path = sorted((chain.folder / "data/SegmentationClass").glob("*.png"))[0]
    content = path.read_bytes()
    try:
        with Image.open(path) as image:
            wrong = np.full((image.height, image.width), 11, np.uint8) if mask is None else mask
        Image.fromarray(wrong).save(path)
        with pytest.raises(TruthError, match=rf"{path.stem}.*{expected}"):
            _score(chain, chain.config(), taught[0], tmp_path, images=100)
    finally:
        path.write_bytes(content)
