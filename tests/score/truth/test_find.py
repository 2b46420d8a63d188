import pkgutil
import re
import tomllib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wsss.config.load import from_mapping
from wsss.data.manifest import Manifest
from wsss.score.truth.find import TruthError, find_truth, png_folder, read_truth, truth_state

from ..conftest import Run, save_mask

SCORE = "wsss.score"


def test_reads_indices_of_every_image(run: Run) -> None:
    truth = find_truth(run.config.data, Manifest(tuple(run.samples)), "train")
    assert list(truth.sources) == [sample.id for sample in run.samples]
    assert truth.description.endswith("SegmentationClass")
    assert not truth.missing
    for sample in run.samples:
        source = truth.sources[sample.id]
        read = read_truth(source, sample.id, sample.height, sample.width)
        np.testing.assert_array_equal(read, run.truth[sample.id])


def test_missing_truth_is_listed_together(run: Run) -> None:
    folder = run.folder / "data" / "SegmentationClass"
    (folder / "image1.png").unlink()
    (folder / f"{run.samples[0].id}.png").unlink()
    with pytest.raises(TruthError, match="2 of 6 images") as caught:
        find_truth(run.config.data, Manifest(tuple(run.samples)), "train")
    assert "'image1'" in str(caught.value)
    assert repr(run.samples[0].id) in str(caught.value)


def test_wrong_size_names_both_sizes(run: Run) -> None:
    sample = run.samples[1]
    path = run.folder / "data" / "SegmentationClass" / f"{sample.id}.png"
    save_mask(path, np.zeros((7, 9), np.uint8))
    source = find_truth(run.config.data, Manifest((sample,)), "train").sources[sample.id]
    with pytest.raises(TruthError, match=f"{re.escape(str(path))}.*9 x 7 pixels.*is 32 x 24"):
        read_truth(source, sample.id, sample.height, sample.width)


@pytest.mark.parametrize(
    ("kind", "lists", "split", "folder"),
    [
        ("voc", {}, "train", "SegmentationClass"),
        ("voc", {"train_list": "trainaug"}, "train", "SegmentationClassAug"),
        ("voc", {"train_list": "lists/train_aug.txt"}, "train", "SegmentationClassAug"),
        ("voc", {"train_list": "trainaug"}, "val", "SegmentationClass"),
        ("demo", {"train_list": "trainaug"}, "train", "SegmentationClass"),
    ],
)
def test_folder_follows_the_list(kind: str, lists: dict[str, str], split: str, folder: str) -> None:
    config = from_mapping({"data": {"kind": kind, "root": "here", **lists}})
    assert png_folder(config.data, split) == Path("here") / folder


def test_folder_of_photos_may_have_masks_for_a_part(make_run: Callable[..., Run]) -> None:
    run = make_run(4)
    masks = run.folder / "masks"
    save_mask(masks / "image2.png", run.truth["image2"])
    manifest = Manifest(tuple(run.samples))
    config = from_mapping({"data": {"kind": "folder", "root": "photos", "masks": str(masks)}})
    truth = find_truth(config.data, manifest, "train")
    assert list(truth.sources) == ["image2"]
    assert len(truth.missing) == 3
    (masks / "image2.png").unlink()
    with pytest.raises(TruthError, match="4 of 4 images have no ground truth"):
        find_truth(config.data, manifest, "train")


def test_a_folder_without_masks_has_no_truth(run: Run) -> None:
    config = from_mapping({"data": {"kind": "folder", "root": "photos"}})
    assert not config.data.has_truth
    assert run.config.data.has_truth
    with pytest.raises(TruthError, match=r"data\.masks"):
        find_truth(config.data, Manifest(tuple(run.samples)), "train")


def test_truth_in_colours_is_refused(run: Run) -> None:
    sample = run.samples[1]
    path = run.folder / "data" / "SegmentationClass" / f"{sample.id}.png"
    Image.fromarray(np.zeros((24, 32, 3), np.uint8)).save(path)
    source = find_truth(run.config.data, Manifest((sample,)), "train").sources[sample.id]
    with pytest.raises(TruthError, match=f"'image1' cannot be read: {re.escape(str(path))}"):
        read_truth(source, sample.id, sample.height, sample.width)


def test_a_truth_with_more_labels_than_classes_is_named(run: Run, tmp_path: Path) -> None:
    """Its own file, not the shard that is scored against it."""
    path = run.folder / "data" / "SegmentationClass" / "image1.png"
    labels = np.array(Image.open(path))
    labels[0, :2] = 128, 255
    save_mask(path, labels)
    with pytest.raises(
        TruthError,
        match=f"^{re.escape(str(path))}: the truth of 'image1' has label 128, but the class list "
        "ends at 3; correct the mask or data.classes",
    ):
        run.score("blob", [], tmp_path / "o")


def test_the_contract_names_every_other_module_of_the_room() -> None:
    root = Path(__file__).parents[3]
    contracts = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["importlinter"]
    (contract,) = (
        c for c in contracts["contracts"] if c.get("forbidden_modules") == [f"{SCORE}.truth"]
    )
    modules = {f"{SCORE}.{m.name}" for m in pkgutil.iter_modules([str(root / "wsss/score")])}
    assert modules - {f"{SCORE}.truth"} == {m for m in contract["source_modules"] if SCORE in m}


def test_a_link_that_leads_nowhere_is_missing_truth(run: Run) -> None:
    path = run.folder / "data" / "SegmentationClass" / "image1.png"
    path.unlink()
    path.symlink_to("nowhere")
    voc = run.config.data.model_copy(update={"kind": "voc"})
    assert truth_state(voc, "train")
    with pytest.raises(TruthError, match="1 of 6 images have no ground truth: 'image1'"):
        find_truth(voc, Manifest(tuple(run.samples)), "train")
