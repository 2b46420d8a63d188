from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat
from typer.testing import CliRunner

from wsss.__main__ import app
from wsss.data.images.label_png import read_label_png
from wsss.score.truth.errors import TruthError
from wsss.score.truth.sbd_masks import read_sbd, write_sbd_masks

from ..conftest import save_mask

OUTLINED, SEGMENTED = np.full((4, 6), 255, np.uint8), np.zeros((5, 3), np.uint8)
SEGMENTED[1:3, 1] = 20


def save_sbd(path: Path, segmentation: Any) -> None:
    """As SBD's authors wrote their files: a struct GTcls with the fields below."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fields = {"Boundaries": [], "Segmentation": segmentation, "CategoriesPresent": [20]}
    savemat(path, {"GTcls": fields})


@pytest.fixture
def sources(tmp_path: Path) -> tuple[Path, Path]:
    """VOC has the mask of a; SBD those of a and b."""
    voc, sbd = tmp_path / "VOC2012", tmp_path / "dataset"
    (voc / "JPEGImages").mkdir(parents=True)
    lists = voc / "ImageSets/Segmentation"
    lists.mkdir(parents=True)
    (lists / "trainaug.txt").write_text("a\nb\n")
    save_mask(voc / "SegmentationClass" / "a.png", OUTLINED)
    save_sbd(sbd / "cls/a.mat", np.zeros((4, 6), np.uint8))
    save_sbd(sbd / "cls/b.mat", SEGMENTED)
    return voc, sbd


def test_masks_of_voc_take_precedence(sources: tuple[Path, Path]) -> None:
    voc, sbd = sources
    done = CliRunner().invoke(app, ["truth", "sbd-masks", str(voc), str(sbd)])
    assert done.exit_code == 0, done.output
    assert "0 were there, 1 are VOC's, 1 SBD's" in done.output
    folder = voc / "SegmentationClassAug"
    np.testing.assert_array_equal(read_label_png(folder / "a.png"), OUTLINED)
    np.testing.assert_array_equal(read_label_png(folder / "b.png"), SEGMENTED)
    assert (folder / "a.png").read_bytes() == (voc / "SegmentationClass/a.png").read_bytes()
    with Image.open(folder / "b.png") as image:
        assert image.mode == "P"


def test_a_list_may_hold_paths_of_image_and_mask(sources: tuple[Path, Path]) -> None:
    voc, sbd = sources
    lines = (f"/JPEGImages/{name}.jpg /SegmentationClassAug/{name}.png\n" for name in "ab")
    (voc / "ImageSets/Segmentation/trainaug.txt").write_text("".join(lines))
    report = write_sbd_masks(voc, sbd)
    assert (report.voc, report.sbd) == (1, 1)
    assert sorted(path.name for path in report.folder.iterdir()) == ["a.png", "b.png"]


def test_existing_masks_are_not_changed(sources: tuple[Path, Path], tmp_path: Path) -> None:
    voc, sbd = sources
    out = tmp_path / "out"
    save_mask(out / "b.png", OUTLINED)
    (out / "a.png").touch()  # what a power cut leaves
    report = write_sbd_masks(voc, sbd, out=out)
    assert (report.present, report.voc, report.sbd) == (1, 1, 0)
    np.testing.assert_array_equal(read_label_png(out / "b.png"), OUTLINED)
    np.testing.assert_array_equal(read_label_png(out / "a.png"), OUTLINED)


def test_missing_masks_are_listed_before_anything_is_written(sources: tuple[Path, Path]) -> None:
    voc, sbd = sources
    (voc / "ImageSets/Segmentation/trainaug.txt").write_text("a\nb\nc\nd\n")
    with pytest.raises(TruthError, match=r"2 of 4 images have a mask neither in .*: c, d"):
        write_sbd_masks(voc, sbd)
    assert not (voc / "SegmentationClassAug").exists()


@pytest.mark.parametrize("labels", [np.full((2, 2), 21, np.uint8), np.zeros((2, 2, 3), np.uint8)])
def test_other_contents_are_refused(tmp_path: Path, labels: np.ndarray) -> None:
    save_sbd(tmp_path / "a.mat", labels)
    with pytest.raises(TruthError, match=r"a\.mat: Segmentation is no map of labels 0 … 20"):
        read_sbd(tmp_path / "a.mat")


@pytest.mark.parametrize(
    "content",
    [b"", b"MATLAB", bytes(400), b"\x89HDF\r\n\x1a\n" + bytes(600), b"MATLAB 5.0".ljust(2**12)],
    ids=["empty", "text", "zeros", "HDF5", "header"],
)
def test_damaged_files_are_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.mat").write_bytes(content)
    with pytest.raises(TruthError, match=r"a\.mat: is none of SBD's"):
        read_sbd(tmp_path / "a.mat")


def test_other_files_are_named(tmp_path: Path) -> None:
    savemat(tmp_path / "other.mat", {"other": 1})
    for name in ("other", "gone"):
        with pytest.raises(TruthError, match=rf"{name}\.mat: is none of SBD's"):
            read_sbd(tmp_path / f"{name}.mat")
