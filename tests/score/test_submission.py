import io
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from tests.builders import write_manifest_folder, write_shard
from wsss.__main__ import app
from wsss.artifacts.errors import ArtifactError
from wsss.artifacts.shard import Item
from wsss.data.datasets.classes import class_list
from wsss.data.images.label_png import voc_palette
from wsss.data.manifest import Sample
from wsss.score.submission import write_submission

IDS = ("2008_2", "2008_1", "2008_3")
FOLDER = "results/VOC2012/Segmentation/comp6_test_cls"


def labels(index: int) -> np.ndarray:
    label_map = np.zeros((5, 4 + index), np.uint8)
    label_map[1:3, 1:3] = 18 + index
    return label_map


class Predictions:
    """A manifest of three test images, their list, and shards of predictions."""

    def __init__(self, folder: Path, classes: str = "voc") -> None:
        self.folder, self.manifest, self.ids = folder, folder / "manifest", folder / "test.txt"
        class_names = class_list(classes)
        samples = [
            Sample(image, "test", Path(f"{image}.jpg"), 4 + index, 5, f"{index}", ())
            for index, image in enumerate(IDS)
        ]
        write_manifest_folder(self.manifest, class_names, samples)
        self.ids.write_text("".join(f"{image}\n" for image in IDS))
        self.maps = {image: labels(index) for index, image in enumerate(IDS)}

    def shard(self, name: str, maps: Mapping[str, np.ndarray]) -> Path:
        items = (
            Item(image, {"multi_crf": label_map, "single": np.zeros_like(label_map)})
            for image, label_map in maps.items()
        )
        return write_shard(self.folder / f"{name}.h5", "predictions", items)

    def shards(self) -> list[Path]:
        """Cut so that the order of the list goes to and fro between the two."""
        parts = {"1": IDS[:2], "2": IDS[2:]}
        return [self.shard(n, {i: self.maps[i] for i in part}) for n, part in parts.items()]

    def pack(self, name: str, shards: list[Path] | None = None, **options: str) -> Path:
        out = self.folder / name
        given = {"protocol": "multi_crf"} | options
        shards = self.shards() if shards is None else shards
        write_submission(shards, self.manifest, self.ids, out, **given)
        return out


@pytest.fixture
def predictions(tmp_path: Path) -> Predictions:
    return Predictions(tmp_path)


def members(path: Path) -> dict[str, bytes]:
    """Names and contents in the archive's order, read by the standard library."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            return {name: archive.read(name) for name in archive.namelist()}
    with tarfile.open(path, "r:gz") as packed:
        contents = {}
        for member in packed.getmembers():
            stream = packed.extractfile(member)
            contents[member.name] = stream.read()
        return contents


@pytest.mark.parametrize("name", ["a.tgz", "a.tar.gz", "a.zip"])
def test_the_archive_has_every_image(predictions: Predictions, name: str) -> None:
    contents = members(predictions.pack(name))
    assert list(contents) == [f"{FOLDER}/{image}.png" for image in sorted(IDS)]
    for image, expected in predictions.maps.items():
        with Image.open(io.BytesIO(contents[f"{FOLDER}/{image}.png"])) as png:
            assert (png.format, png.mode) == ("PNG", "P")
            palette = png.getpalette()
            assert palette[: 21 * 3] == [value for rgb in voc_palette()[:21] for value in rgb]
            np.testing.assert_array_equal(np.array(png), expected)


@pytest.mark.parametrize("name", ["tgz", "zip"])
def test_bytes_depend_only_on_the_predictions(predictions: Predictions, name: str) -> None:
    first = predictions.pack(f"first.{name}").read_bytes()
    whole = predictions.shard("whole", {i: predictions.maps[i] for i in reversed(IDS)})
    predictions.ids.write_text("\n".join(reversed(IDS)))
    assert predictions.pack(f"second.{name}", [whole]).read_bytes() == first
    predictions.maps[IDS[0]][0, 0] = 1
    assert predictions.pack(f"first.{name}").read_bytes() != first


def test_protocol_and_competition(predictions: Predictions) -> None:
    contents = members(predictions.pack("a.tgz", protocol="single", competition="comp5"))
    name = f"results/VOC2012/Segmentation/comp5_test_cls/{IDS[0]}.png"
    with Image.open(io.BytesIO(contents[name])) as png:
        assert not np.array(png).any()
    with pytest.raises(ArtifactError, match=r"'multi' of .* is not there; the shard has"):
        predictions.pack("b.tgz", protocol="multi")


def test_images_that_are_not_listed_are_excluded(predictions: Predictions) -> None:
    predictions.ids.write_text(f"{IDS[1]}\n")
    assert list(members(predictions.pack("a.zip"))) == [f"{FOLDER}/{IDS[1]}.png"]


@pytest.mark.parametrize(
    ("label", "message"),
    [(21, "holds label 21"), (255, "holds label 255; the server takes 0 … 20")],
)
def test_other_labels_are_refused(predictions: Predictions, label: int, message: str) -> None:
    predictions.maps[IDS[2]][0, 0] = label
    with pytest.raises(ArtifactError, match=f"'2008_3' {message}"):
        predictions.pack("a.tgz")
    assert not list(predictions.folder.glob("*.tgz*"))
    assert not list(predictions.folder.glob(".*"))


def test_another_size_is_refused(predictions: Predictions) -> None:
    predictions.maps[IDS[1]] = predictions.maps[IDS[1]][:, :-1].copy()
    with pytest.raises(ArtifactError, match="'2008_1' is 4 x 5 pixels, its image 5 x 5"):
        predictions.pack("a.tgz")


def test_every_image_is_required_exactly_once(predictions: Predictions) -> None:
    first, second = predictions.shards()
    with pytest.raises(ArtifactError, match="the shards lack 1 images: 2008_3; pass all shards"):
        predictions.pack("a.tgz", [first])
    again = predictions.shard("again", {IDS[2]: predictions.maps[IDS[2]]})
    with pytest.raises(ArtifactError, match="shards hold more than once 1 images: 2008_3"):
        predictions.pack("a.tgz", [first, second, again])
    predictions.ids.write_text("\n".join([*IDS, "2008_9"]))
    with pytest.raises(ArtifactError, match="manifest: lacks 1 images: 2008_9; see quarantine"):
        predictions.pack("a.tgz", [first, second])
    predictions.ids.write_text("\n".join([*IDS, IDS[0]]))
    with pytest.raises(ArtifactError, match="lists more than once 1 images: 2008_2"):
        predictions.pack("a.tgz", [first, second])
    predictions.ids.write_text("\n")
    with pytest.raises(ArtifactError, match="names no image"):
        predictions.pack("a.tgz", [first, second])


def test_other_classes_and_endings_are_refused(tmp_path: Path) -> None:
    predictions = Predictions(tmp_path, "demo")
    with pytest.raises(ArtifactError, match="the server takes VOC's twenty"):
        predictions.pack("a.tgz")
    with pytest.raises(ValueError, match=r"ends in none of \.tgz, \.tar\.gz, \.zip"):
        predictions.pack("a.rar")


def test_the_command(predictions: Predictions) -> None:
    out = predictions.folder / "deep" / "comp6.tgz"
    shards = list(map(str, predictions.shards()))
    given = ["--manifest", str(predictions.manifest), "--list", str(predictions.ids)]
    done = CliRunner().invoke(app, ["export", "voc-submission", *shards, *given, "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert f"3 images (multi_crf) in {out}" in done.output
    assert len(members(out)) == 3
