"""From hostile folders to a manifest: what is used, what is listed, and why."""

import hashlib
import json
import os
import subprocess
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.machines import name_space
from wsss.artifacts.errors import ArtifactError
from wsss.data.datasets.candidates import Candidate
from wsss.data.errors import IngestError
from wsss.data.images import decode
from wsss.data.images.label_png import read_label_png, save_label_png
from wsss.data.images.read import ImageFacts, read_image
from wsss.data.ingest.triage import triage
from wsss.data.manifest_folder import load
from wsss.masks.store import png_path

from ..conftest import Photos, make_config, picture, run_ingest

GOOD = ImageFacts(16, 12, digest="d" * 64)


def age(root: Path) -> None:
    """Make files old enough for the cache."""
    for path in root.rglob("*.*"):
        os.utime(path, ns=(10**18, 10**18))


def test_a_good_photo(photos: Photos) -> None:
    path = photos.add("a b é.jpg")
    photos.table("image,tags\na b é.jpg,dog;cat\n")
    report = photos.ingest()
    sample = photos.samples()["a b é"]
    assert (sample.split, sample.path, sample.width, sample.height) == ("train", path, 16, 12)
    assert sample.digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert photos.tags("a b é") == ["dog", "cat"]
    assert (report.images, report.unusable, report.decoded) == ({"train": 1}, 0, 1)
    assert photos.quarantine() == {}
    provenance = json.loads((photos.out / "provenance.json").read_text())
    assert provenance["stage"] == "ingest"
    assert list(provenance["inputs"]) == [str(photos.root / "tags.csv")]


def test_unusable_files_are_listed_and_the_rest_used(photos: Photos) -> None:
    for name in ("good", "cut", "untagged", "odd"):
        photos.add(f"{name}.jpg")
    (photos.root / "empty.jpg").touch()
    (photos.root / "text.jpg").write_text("hello")
    cut = photos.root / "cut.jpg"
    cut.write_bytes(cut.read_bytes()[:-40])
    photos.table(
        "image,tags\ngood.jpg,cat\ncut.jpg,cat\nempty.jpg,cat\ntext.jpg,cat\nodd.jpg,cat;unicorn\n"
        "gone.jpg,cat\n"
    )
    photos.ingest(quarantine_limit=0.9)
    assert list(photos.samples()) == ["good"]
    rows = photos.quarantine()
    assert rows.pop("untagged") == ("skipped", "no tag: no row in tags.csv")
    assert {used for used, _ in rows.values()} == {"no"}
    reasons = {image: reason for image, (_, reason) in rows.items()}
    assert reasons.pop("cut").startswith("cannot be decoded")
    assert reasons.pop("text").startswith("not an image")
    assert reasons == {
        "empty": "empty file (zero bytes)",
        "odd": "unknown tag 'unicorn'",
        "gone.jpg": "missing file (tags.csv line 7)",
    }


def test_converted_files_are_used_and_listed(photos: Photos) -> None:
    image = Image.fromarray(picture())
    Image.fromarray(picture()[..., 0].astype(np.uint16) << 8).save(photos.root / "deep.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(photos.root / "turned.jpg", exif=exif)
    photos.table("image,tags\ndeep,cat\nturned,cat\n")
    report = photos.ingest(quarantine_limit=0)
    assert report.images == {"train": 2}
    assert report.noted == 2
    assert photos.quarantine() == {
        "deep": ("yes", "16-bit, high byte kept; grey converted to RGB"),
        "turned": ("yes", "turned upright (EXIF orientation 6)"),
    }
    for sample in photos.samples().values():
        assert read_image(sample.path).shape == (sample.height, sample.width, 3)
    assert photos.samples()["turned"].width == 12


def test_the_first_of_duplicate_ids_is_used(photos: Photos) -> None:
    first, second = photos.add("a.jpg", seed=1), photos.add("a.png", seed=2)
    photos.table("image,tags\na.png,dog\na.jpg,cat\n")
    photos.ingest()
    assert photos.samples()["a"].path == first
    assert photos.tags("a") == ["cat"]
    assert photos.quarantine()["a"][1].startswith(
        f"same name but for the ending: its mask would be that of {first}; rename one"
    )
    first.write_text("no image")
    photos.ingest()
    assert photos.samples()["a"].path == second, "the second is used where the first cannot be"


def test_a_repeated_row(photos: Photos) -> None:
    photos.add("a.jpg")
    photos.add("b.jpg")
    photos.table("image,tags\na.jpg,cat\na.jpg,CAT\nb.jpg,cat\nb.jpg,dog\n")
    report = photos.ingest()
    assert report.skipped == 1
    assert list(photos.samples()) == ["a"]
    reason = "tags.csv lists it with different tags (lines 4, 5); merge them"
    assert photos.quarantine() == {"a": ("skipped", "listed twice; used once"), "b": ("no", reason)}


def test_held_out_images_without_tag_are_predicted(photos: Photos) -> None:
    photos.add("a.jpg")
    photos.add("b.jpg")
    photos.add("c.jpg")
    photos.table("image,tags,split\na.jpg,cat,train\nb.jpg,,val\nc.jpg,,train\n")
    photos.ingest()
    assert photos.samples()["b"].tags == ()
    assert photos.quarantine() == {
        "b": ("yes", "no tag: predicted only"),
        "c": ("skipped", "no tag: tags.csv line 4 names none"),
    }


def test_equal_content_is_noted_and_a_leak_into_val_reported(photos: Photos) -> None:
    for name in "abc":
        photos.add(f"{name}.jpg", seed=3)
    photos.table("image,tags,split\na.jpg,cat,train\nb.jpg,cat,train\nc.jpg,cat,val\n")
    report = photos.ingest()
    assert report.images == {"train": 2, "val": 1}
    assert photos.quarantine() == {
        "b": ("yes", "same content as 'a'"),
        "c": ("yes", "same content as 'a' in train: its score is not held out"),
    }


def test_same_image_in_both_lists(make_voc: Callable[..., Path], tmp_path: Path) -> None:
    root = make_voc({"a": ["cat"], "b": ["dog"]}, train=["a", "b", "a"], val=["b"])
    config = make_config({"kind": "voc", "root": str(root)})
    report = run_ingest(config, tmp_path / "out")
    assert report.images == {"train": 2, "val": 1}
    assert report.decoded == 2
    assert report.skipped == 1
    assert "is not held out" in (tmp_path / "out" / "quarantine.csv").read_text()


@pytest.mark.parametrize("image", ["../a", "/a", "a/../../b", ""])
def test_ids_outside_the_folder_are_refused(image: str) -> None:
    path = Path("x.jpg")
    images = triage([Candidate(image, "train", path, (0,))], {path: GOOD})
    assert not images.samples
    assert "leads out of the results' folder" in images.rows[0].reason


@pytest.mark.parametrize(
    ("ids", "reason"),
    [
        (("a", "a.png/x"), "its folder a.png would be the mask of id 'a'; rename one of them"),
        (
            ("b/a.png/x", "b/a"),
            "its mask b/a.png would be the folder of id 'b/a.png/x'; rename",
        ),
        (("a", "./a"), "id './a' is another way to write 'a'"),
        (("a/b", "a//b"), "id 'a//b' is another way to write 'a/b'"),
        (("a", "a/"), "id 'a/' is another way to write 'a'"),
    ],
    ids=str,
)
def test_results_of_two_images_never_have_one_name(ids: tuple[str, str], reason: str) -> None:
    files = [Path("0.jpg"), Path("1.jpg")]
    images = [Candidate(image, "train", file, (0,)) for image, file in zip(ids, files, strict=True)]
    outcome = triage([*images, Candidate("c", "val", files[1])], dict.fromkeys(files, GOOD))
    assert [sample.id for sample in outcome.samples] == [ids[0], "c"]
    assert outcome.rows[0].id == ids[1]
    assert outcome.rows[0].reason.startswith(reason)
    assert outcome.rows[0].used == ("no" if "another way" in reason else "skipped")


def test_results_of_other_splits_lie_elsewhere() -> None:
    images = [
        Candidate("a", "train", Path("0.jpg"), (0,)),
        Candidate("a.png/x", "val", Path("0.jpg")),
    ]
    assert len(triage(images, {Path("0.jpg"): GOOD}).samples) == 2


def test_odd_ids_keep_their_own_masks(photos: Photos, tmp_path: Path) -> None:
    """All that a disk can hold is written under its own name, and read again."""
    names = ["a", "a.png", "a.png.tmp", "label", "train/label", "dot.", "space ", "A"]
    names += ["e\N{COMBINING ACUTE ACCENT}", "x" * 200, "-rf", "*", "a;b"]
    for name in names:
        photos.add(f"{name}.jpg")
    photos.add("long" * 51 + ".jpg")
    cells = "".join(f'"{name}.jpg",cat\n' for name in [*names, "long" * 51])
    photos.table(f"image,tags\n{cells}")
    photos.ingest(quarantine_limit=0.1)
    ids = list(photos.samples())
    assert sorted(ids) == sorted(unicodedata.normalize("NFC", name) for name in names)
    rows = photos.quarantine()
    assert rows["long" * 51][1].startswith("id 'longlong")
    assert "is longer than 200 bytes" in rows["long" * 51][1]
    assert "in case or Unicode form only" in rows[max("a", "A")][1]
    labels = np.zeros((12, 16), np.uint8)
    for index, image in enumerate(ids):
        save_label_png(png_path(tmp_path / "label", image), labels + index)
    for index, image in enumerate(ids):
        assert read_label_png(png_path(tmp_path / "label", image)).max() == index


def test_nothing_is_dropped() -> None:
    """Every candidate becomes a sample or a row."""
    paths = [Path(f"{n}.jpg") for n in range(3)]
    decoded = {paths[0]: GOOD, paths[1]: ImageFacts(error="broken")}
    candidates = [
        Candidate(image, split, path, tags, problem, skipped)
        for image in ("a", "b", "..")
        for split in ("train", "val")
        for path in paths
        for tags in ((), (1,))
        for problem in (None, "a problem")
        for skipped in (None, "skipped")
    ]
    images = triage(candidates, decoded)
    listed = [row for row in images.rows if row.used != "yes"]
    assert len(images.samples) + len(listed) == len(candidates)
    keys = [(sample.split, sample.id) for sample in images.samples]
    assert sorted(keys) == [("train", "a"), ("train", "b"), ("val", "a"), ("val", "b")]


def bad_photos(photos: Photos, good: int, bad: int) -> None:
    for n in range(good):
        photos.add(f"{n}.jpg")
    for n in range(bad):
        (photos.root / f"bad {n}.jpg").touch()
    names = [f"{n}.jpg" for n in range(good)] + [f"bad {n}.jpg" for n in range(bad)]
    photos.table("image,tags\n" + "".join(f"{name},cat\n" for name in names))


def test_limit_stops_the_run_after_the_table_is_written(photos: Photos) -> None:
    bad_photos(photos, 14, 6)
    assert photos.ingest(quarantine_limit=0.3).unusable == 6
    assert (photos.out / "manifest.csv").exists()
    with pytest.raises(IngestError) as caught:
        photos.ingest(quarantine_limit=0.29)
    message = str(caught.value)
    assert "6 of 20 images (30.0%) cannot be used, over data.quarantine_limit (29.0%)" in message
    assert str(photos.out / "quarantine.csv") in message
    assert f"6 'empty file', e.g. {photos.root / 'bad 0.jpg'}" in message
    assert photos.quarantine()["bad 0"][0] == "no"
    assert not (photos.out / "manifest.csv").exists(), "that of the earlier run is gone, too"
    with pytest.raises(ArtifactError, match="run ingest first"):
        load(photos.out)


def test_five_bad_files_never_stop_a_run(photos: Photos, caplog: pytest.LogCaptureFixture) -> None:
    bad_photos(photos, 1, 5)
    assert photos.ingest(quarantine_limit=0).unusable == 5
    warnings = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert len(warnings) == 1
    assert warnings[0].startswith("5 of 6 images cannot be used and are left out: 5 'empty file'")


def test_both_files_of_an_id_are_named(photos: Photos, caplog: pytest.LogCaptureFixture) -> None:
    paths = [photos.add(f"a.{ending}") for ending in ("jpg", "png")]
    photos.table("image,tags\na.jpg,cat\na.png,cat\n")
    photos.ingest()
    assert all(str(path) in caplog.text for path in paths)


def test_no_usable_image(photos: Photos) -> None:
    (photos.root / "bad.jpg").touch()
    photos.table("image,tags\nbad.jpg,cat\n")
    with pytest.raises(IngestError, match="no image is left to use"):
        photos.ingest(quarantine_limit=1)
    photos.table("image,tags\n")
    (photos.root / "bad.jpg").unlink()
    with pytest.raises(IngestError, match="name no image at all"):
        photos.ingest()


def test_only_changed_files_are_decoded_again(
    photos: Photos, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    inspect = decode.inspect_image

    def spy(path: Path, *, max_pixels: int) -> object:
        opened.append(path.name)
        return inspect(path, max_pixels=max_pixels)

    monkeypatch.setattr(decode, "inspect_image", spy)
    photos.add("a.jpg")
    photos.add("b.png")
    (photos.root / "broken.jpg").touch()
    photos.table("image,tags\na,cat\nb,dog\nbroken,dog\n")
    age(photos.root)
    photos.ingest()
    first = (photos.out / "manifest.csv").read_bytes()
    assert sorted(opened) == ["a.jpg", "b.png", "broken.jpg"]

    opened.clear()
    report = photos.ingest()
    assert (report.reused, report.decoded) == (2, 1)
    assert opened == ["broken.jpg"]
    assert (photos.out / "manifest.csv").read_bytes() == first

    opened.clear()
    photos.add("c.jpg", seed=9)
    photos.table("image,tags\na,cat\nb,dog\nbroken,dog\nc,cat\n")
    photos.add("b.png", seed=8)  # changed, and too recent for the cache
    photos.ingest()
    assert sorted(opened) == ["b.png", "broken.jpg", "c.jpg"]
    digest = photos.samples()["b"].digest
    assert digest == hashlib.sha256((photos.root / "b.png").read_bytes()).hexdigest()

    opened.clear()
    photos.ingest()
    assert sorted(opened) == ["b.png", "broken.jpg", "c.jpg"], "fresh files are not trusted"


def test_cached_files_obey_a_lower_size_limit(photos: Photos) -> None:
    photos.add("a.jpg")
    photos.add("b.jpg")
    photos.table("image,tags\na,cat\nb,dog\n")
    Image.fromarray(picture(height=40)).save(photos.root / "b.jpg")
    age(photos.root)
    photos.ingest()
    report = photos.ingest(max_pixels=200)
    assert report.reused == 2
    assert "over data.max_pixels = 200" in photos.quarantine()["b"][1]
    assert photos.ingest().unusable == 0


def test_a_damaged_cache_is_ignored(photos: Photos) -> None:
    photos.add("a.jpg")
    photos.table("image,tags\na,cat\n")
    age(photos.root)
    photos.ingest()
    cache = photos.out / ".cache" / "decoded.json"
    other_version = cache.read_text().replace('"version": "', '"version": "0')
    for text in ("", "[]", '{"version": 1}', other_version):
        cache.write_text(text)
        assert photos.ingest().decoded == 1
    assert photos.ingest().reused == 1


@pytest.mark.slow
def test_the_number_of_workers_is_irrelevant(
    photos: Photos, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decode, "_BYTES_WORTH_A_POOL", 0)
    rows = []
    for n in range(40):
        photos.add(f"{n}.jpg", seed=n)
        rows.append(f"{n}.jpg,cat\n")
    for n in range(0, 40, 9):
        (photos.root / f"{n}.jpg").write_text("broken")
    photos.table("image,tags\n" + "".join(rows))
    written = []
    for workers in (1, 2):
        config = photos.config()
        compute = config.compute.model_copy(update={"workers": workers})
        run_ingest(config.model_copy(update={"compute": compute}), photos.out)
        written.append([(photos.out / n).read_bytes() for n in ("manifest.csv", "quarantine.csv")])
    assert written[0] == written[1]


def test_a_list_of_images_to_predict(make_voc: Callable[..., Path], tmp_path: Path) -> None:
    """VOC publishes nothing of its test images but the images."""
    root = make_voc({"a": ["cat"], "t": None, "u": None}, train=["a"], test=["t", "u", "gone"])
    config = make_config({"kind": "voc", "root": str(root), "quarantine_limit": 0.5})
    report = run_ingest(config, tmp_path / "test", test_list="test")
    assert report.images == {"test": 2}
    assert report.unusable == 1
    manifest, _ = load(tmp_path / "test")
    assert [(sample.id, sample.tags) for sample in manifest.split("test")] == [("t", ()), ("u", ())]
    assert "gone,test,no,missing file" in (tmp_path / "test/quarantine.csv").read_text()


def test_a_photo_that_may_not_be_read_is_not_listed_as_unusable(photos: Photos) -> None:
    """The right to read it is to be mended, and not the photo."""
    photos.add("a.jpg")
    locked = photos.add("b.jpg")
    photos.table("image,tags\na.jpg,dog\nb.jpg,cat\n")
    locked.chmod(0)
    config = photos.root.parent / "config.yaml"
    config.write_text(photos.config(quarantine_limit=0.9).model_dump_json())
    command = [sys.executable, "-m", "wsss", "ingest", "-c", str(config), "--out", str(photos.out)]
    user = [] if os.getuid() else name_space("-U", "--map-user=1000", "--map-group=1000")
    done = subprocess.run(
        [*user, *command],
        cwd=Path(__file__).parents[3],
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        f"error: {locked}: cannot be read: Permission denied; let this user read it (ask whoever "
        "wrote it), then run the same command again"
    )
    assert not (photos.out / "quarantine.csv").exists()
