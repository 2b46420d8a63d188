"""`wsss tags suggest` and `wsss predict`, the real commands."""

import csv
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from tests.demo_checkpoints import LABELS, write_segmenter
from tests.photos.test_photo_run import CLIP, draw_photos, run, table
from wsss.api.models import load_segmenter
from wsss.artifacts.exclusive_lock import exclusive_lock
from wsss.cli.app import app
from wsss.compute.threads import fixed_threads
from wsss.config.errors import ConfigError
from wsss.data.datasets.tag_table import read_table
from wsss.data.images.label_png import read_label_png
from wsss.data.images.read import read_image
from wsss.photos.check import PhotoCheck, check_photos
from wsss.photos.predict import RECORD, predict_photos
from wsss.photos.record import read_record
from wsss.photos.settings import photo_settings, settings_yaml


@pytest.mark.slow
def test_suggested_tags_are_a_table_of_tags(tmp_path: Path) -> None:
    """CLIP's words with probabilities; the right word mostly comes first; nothing is replaced."""
    photos = tmp_path / "photos"
    truth = draw_photos(photos, {f"in/{index}": index for index in range(6)})
    (photos / "broken.jpg").write_bytes(b"\xff\xd8 no photo")
    words = sorted({word for tags in truth.values() for word in tags})
    command = ("wsss", "tags", "suggest", "photos", "--words", ", ".join(words), *CLIP)
    done = run(tmp_path, *command, "--threshold", "0.05")
    assert "photos/broken.jpg: left out" in done.stderr
    rows = read_table(photos / "tags.csv")
    assert [row.image for row in rows] == [f"in/{index}.jpg" for index in range(6)]
    hits = 0
    for row, columns in zip(rows, table(photos / "tags.csv"), strict=True):
        probs = {word: float(columns[f"p({word})"]) for word in words}
        tags = [word for word in row.tags.split(";") if word]
        assert set(tags) == {word for word, probability in probs.items() if probability >= 0.05}
        assert tags == sorted(tags, key=lambda word: -probs[word])
        hits += max(probs, key=lambda word: probs[word]) in truth[row.image.removesuffix(".jpg")]
    assert hits >= 4
    refused = run(tmp_path, *command, "--out", "x.csv", "--precision", "half", check=False)
    assert refused.returncode != 0
    assert "precision: expected one of 'auto', 'float32'" in refused.stderr
    again = run(tmp_path, *command, check=False)
    assert again.returncode != 0
    assert "may hold corrections" in again.stderr


@pytest.mark.slow
def test_tags_of_one_photo_go_into_its_folder(tmp_path: Path) -> None:
    draw_photos(tmp_path / "my photos", {"a": 0, "b": 1})
    command = ("wsss", "tags", "suggest", "my photos/a.jpg", "--words", "cat, cow", *CLIP)
    screen = run(tmp_path, *command).stdout
    assert [row.image for row in read_table(tmp_path / "my photos/tags.csv")] == ["a.jpg"]
    assert "then: wsss photos 'my photos'\n" in screen
    screen = run(tmp_path, *command, "--out", "t.csv").stdout
    assert "then: wsss photos 'my photos' --tags t.csv\n" in screen


@pytest.mark.slow
def test_predict_needs_the_checkpoint_alone(tmp_path: Path) -> None:
    """Masks at the photo's size, ids of the folder's table; what did not change is kept."""
    photos, out = tmp_path / "new", tmp_path / "new-predicted"
    draw_photos(photos, {"a": 0, "sub/b": 1})
    Image.open(photos / "a.jpg").resize((1500, 1200)).save(photos / "large.png")
    write_segmenter(tmp_path / "run/segmenter/weights.safetensors")
    command = ("wsss", "predict", "new", "--weights", "run", "--long-side", "200")
    assert "masks of 3 photos: new-predicted/masks" in run(tmp_path, *command).stdout
    assert [row["name"] for row in table(out / "classes.csv")] == list(LABELS)
    with Image.open(out / "masks/large.png") as image:
        assert image.size == (1500, 1200)
        labels = np.array(image)
    (entry,) = (e for e in read_record(out / RECORD).entries if e.id == "large")
    assert entry.shares == {
        label: pytest.approx(np.mean(labels == label)) for label in np.unique(labels).tolist()
    }
    before = (out / "masks/a.png").stat()
    (photos / "sub/b.jpg").unlink()
    draw_photos(photos, {"c": 2})
    assert "masks of 3 photos" in run(tmp_path, *command).stdout
    assert (out / "masks/a.png").stat().st_mtime_ns == before.st_mtime_ns
    assert not (out / "masks/sub").exists()
    assert "masks of 3 photos" in run(tmp_path, *command, "--precision", "bf16").stdout
    assert (out / "masks/a.png").stat().st_mtime_ns != before.st_mtime_ns
    assert read_record(out / RECORD).provenance.config == {"compute.precision": "bf16"}
    with (out / "review.csv").open(encoding="utf-8") as stream:
        assert {row["photo"] for row in csv.DictReader(stream)} <= {"a", "c", "large"}
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/config.yaml").write_text("name: mine")
    done = run(tmp_path, *command, "--out", "mine", check=False)
    assert "--out mine: holds 'config.yaml', which this command did not write" in done.stderr
    with exclusive_lock((out / RECORD).parent):
        done = run(tmp_path, *command, check=False)
    assert "error: --out new-predicted: another process works there (process " in done.stderr
    done = run(tmp_path, "wsss", "predict", "new", "--weights", "nowhere", check=False)
    assert done.returncode == 1
    assert "--weights nowhere: no checkpoint of a segmenter" in done.stderr


@pytest.mark.slow
def test_other_scales_are_another_prediction(tmp_path: Path) -> None:
    """Also if the same weights note others; those that the checkpoint notes are the default."""
    draw_photos(tmp_path / "new", {"a": 0})
    weights = tmp_path / "weights.safetensors"
    write_segmenter(weights)
    mask, times = tmp_path / "out/masks/a.png", []
    for options in ([], ["--scales", "0.5,1"], ["--scales", "1"], ["--scales", "1"]):
        fixed = ["--weights", str(weights), "--out", str(tmp_path / "out"), "--device", "cpu"]
        done = CliRunner().invoke(app, ["predict", str(tmp_path / "new"), *fixed, *options])
        assert done.exit_code == 0, done.output
        times.append(mask.stat().st_mtime_ns)
    assert times[0] == times[1] < times[2] == times[3]
    photo = read_image(tmp_path / "new/a.jpg")
    segmenter = load_segmenter(weights, scales=[1.0], device="cpu")
    assert np.array_equal(read_label_png(mask), segmenter.predict(photo).labels)
    done = CliRunner().invoke(app, ["predict", "new", "--weights", "x", "--scales", "1;2"])
    assert "expected numbers with commas between" in " ".join(done.output.split())
    with pytest.raises(ValueError, match=r"scales\.0: expected a number greater than 0"):
        load_segmenter(weights, scales=[0.0])
    with pytest.raises(ValueError, match=r"scales\.0: expected a number less than or equal to 16"):
        load_segmenter(weights, scales=[100])


@pytest.mark.parametrize(
    ("free", "advice"),
    [
        (8.1e9, None),
        (7.9e9, "  that may not do; lower compute.workers to 3 in a --config file"),
        (1.9e9, "  that will not do; scale this photo down, or free memory"),
    ],
)
def test_memory_of_the_largest_photo(
    monkeypatch: pytest.MonkeyPatch, free: float, advice: str | None
) -> None:
    """32 megapixels take 2 GB per process; the number of processes that fits is said."""
    path = Path("large.jpg")
    check = PhotoCheck(Path(), Path("tags.csv"), ("cat",), {"cat": 1}, 1, (), (path, 8000, 4000))
    memory = SimpleNamespace(available=free)
    monkeypatch.setattr("wsss.photos.check.psutil.virtual_memory", lambda: memory)
    lines = list(check.lines(4))
    needed = "memory: large.jpg takes about 2.0 GB in each of 4 processes"
    assert f"{needed}; {free / 1e9:.1f} GB are free" in lines
    assert advice is None or advice in lines
    assert any(line.startswith("  that") for line in lines) == (advice is not None)


def test_paths_of_a_configuration_are_those_of_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine runs in the folder of the results; a folder may have the name of weights."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "random").mkdir()
    (tmp_path / "net.pth").touch()
    paths = {"data": {"masks": "hand"}, "refine": {"checkpoint": "r.safetensors"}}
    segmenter = {"enabled": True, "corrected": "hand", "init": "net.pth"}
    changes = paths | {"retrain": segmenter}
    settings = photo_settings(Path("photos"), "best", classes=["cat"], changes=changes)
    assert settings.data.masks == settings.retrain.corrected == str(tmp_path / "hand")
    assert settings.refine.checkpoint == str(tmp_path / "r.safetensors")
    assert settings.retrain.init == str(tmp_path / "net.pth")
    named = {"retrain": {"init": "random"}}
    assert photo_settings(Path("photos"), "best", changes=named).retrain.init == "random"


def test_paths_of_all_sections_are_those_of_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "animals.json").write_text("{}")
    changes = {
        "data": {"tags": "t.csv"},
        "clip": {"model": "local-dir:clip"},
        "cams": {"patch_text": {"tse": {"knowledge": "animals.json"}}},
        "masks": {"refine": "sam", "proposals": {"path": "sam"}},
    }
    settings = photo_settings(Path("photos"), "fast", changes=changes)
    assert settings.data.tags == str(tmp_path / "t.csv")
    assert settings.clip.model == f"local-dir:{tmp_path}/clip"
    assert settings.cams.patch_text.tse.knowledge == str(tmp_path / "animals.json")
    assert settings.masks.proposals.path == str(tmp_path / "sam")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "pets"}, "leave out name; --out says where"),
        ({"pictures": {"folder": "masks"}}, "leave out pictures.folder; --out says where"),
        ({"sweep": {"masks.min_score": [0.5, 0.6]}}, "leave out sweep, or use the workflow"),
        ({"runs": {"a": {"seed": 1}}}, "leave out runs, or"),
        ({"matrix": {"cams": {"a": {"seed": 1}}}}, "leave out matrix, or"),
        (
            {"supervision": "masks", "data": {"masks": "m", "val_list": "v.txt"}},
            "leave out supervision, or",
        ),
    ],
)
def test_results_in_other_places_are_refused(changes: dict[str, Any], message: str) -> None:
    """The command could not say where they are."""
    with pytest.raises(ConfigError, match=message):
        photo_settings(Path("photos"), "best", changes=changes)


def test_the_settings_that_a_run_wrote_can_be_given_again() -> None:
    settings = photo_settings(Path("photos"), "best", classes=["cat"])
    changes = yaml.safe_load(settings_yaml(settings, "snakemake"))
    assert photo_settings(Path("photos"), "fast", changes=changes) == settings


@pytest.mark.parametrize("section", [None, "x"])
def test_a_section_that_is_none_is_refused_with_a_message(section: str | None) -> None:
    with pytest.raises(ConfigError, match="retrain"):
        photo_settings(Path("photos"), "fast", changes={"retrain": section})


@pytest.mark.slow
def test_a_name_that_is_no_utf8_costs_that_photo_alone(tmp_path: Path) -> None:
    draw_photos(tmp_path / "photos", {"a": 0})
    try:
        shutil.copy(tmp_path / "photos/a.jpg", os.fsencode(tmp_path / "photos") + b"/caf\xe9.jpg")
    except OSError:
        pytest.skip("this disk takes UTF-8 names alone")
    write_segmenter(tmp_path / "run/segmenter/weights.safetensors")
    done = run(tmp_path, "wsss", "tags", "suggest", "photos", "--words", "cat, dog", *CLIP)
    assert "bytes that are no UTF-8; rename it" in done.stderr
    assert [row.image for row in read_table(tmp_path / "photos/tags.csv")] == ["a.jpg"]
    done = run(tmp_path, "wsss", "predict", "photos", "--weights", "run")
    assert "masks of 1 photo:" in done.stdout
    record = read_record(tmp_path / "photos-predicted" / RECORD)
    assert next(photo.reason for photo in record.left_out).endswith("rename it")
    missing = run(tmp_path, "wsss", "predict", "nowhere", "--weights", "run", check=False)
    assert "nowhere: no such folder or photo" in missing.stderr
    assert "data.root" not in missing.stderr


@pytest.mark.slow
def test_on_a_gpu_photos_are_decoded_ahead_and_written_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the same order, with the same files; only a few photos are held at once."""
    photos, weights = tmp_path / "photos", tmp_path / "weights.safetensors"
    draw_photos(photos, {str(index): index for index in range(14)})
    (photos / "8.jpg").write_bytes((photos / "8.jpg").read_bytes()[:600])
    write_segmenter(weights)
    with fixed_threads(1):
        expected = predict_photos(photos, weights, tmp_path / "cpu", device="cpu")
    assert {photo.photo for photo in expected.left_out} == {str(photos / "8.jpg")}
    decoded, most_ahead = 0, 0

    def reading(*arguments: Any, **options: Any) -> np.ndarray:
        nonlocal decoded, most_ahead
        decoded += 1
        most_ahead = max(most_ahead, decoded - len(list((tmp_path / "gpu").glob("masks/*"))))
        return read_image(*arguments, **options)

    monkeypatch.setattr("wsss.photos.predict.read_image", reading)
    pretended = SimpleNamespace(type="cuda")
    monkeypatch.setattr("wsss.photos.predict.pick_device", lambda _: pretended)
    with fixed_threads(1):
        record = predict_photos(photos, weights, tmp_path / "gpu", device="cpu")
    assert record.entries == expected.entries
    assert record.left_out == expected.left_out
    for path in ("masks/3.png", "overlays/3.jpg", "index.html", "review.csv"):
        assert (tmp_path / "gpu" / path).read_bytes() == (tmp_path / "cpu" / path).read_bytes()
    assert 2 <= most_ahead <= 10


def test_a_photo_that_is_listed_twice_counts_once(tmp_path: Path) -> None:
    draw_photos(tmp_path / "photos/sub", {"a": 0, "b": 1})
    (tmp_path / "photos/tags.csv").write_text(
        "image,tags\nsub/a.jpg,cat\na.jpg,cat\nsub/b.jpg,dog\n"
    )
    check = check_photos(photo_settings(tmp_path / "photos", "fast").data, 512)
    assert (check.photos, check.counts) == (2, {"cat": 1, "dog": 1})
    assert not any("very long" in line for line in check.lines(1))


def test_what_may_be_misspelt_and_which_files_are_not_used(tmp_path: Path) -> None:
    """Capital letters make no other word, and files have the names that a person sees."""
    draw_photos(tmp_path / "sub", {"a": 0, "b": 1})
    shutil.copy(tmp_path / "sub/a.jpg", tmp_path / "sub/a.jpeg")
    (tmp_path / "sub/c.HEIC").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0")
    (tmp_path / "tags.csv").write_text(
        "image,tags\na.jpg,Horse\na.jpeg,Horse\nb.jpg,horsee\nc.HEIC,horse\nnone.jpg,horse\n"
    )
    check = check_photos(photo_settings(tmp_path, "fast").data, 512)
    lines = list(check.lines(1))
    assert check.photos == 2
    assert any(line.startswith("  sub/a.jpg: same name but for the ending: ") for line in lines)
    assert "  horsee 1: close to Horse 1, meant?" in lines
    assert any(line.startswith("  sub/c.HEIC: ") for line in lines)
    assert any(line.startswith("  none.jpg: missing file") for line in lines)


def test_very_long_photos_are_named_before_the_run(tmp_path: Path) -> None:
    draw_photos(tmp_path, {"a": 0})
    for name, size in (("pano", (576, 43)), ("tall", (20, 121)), ("wide", (360, 60))):
        Image.new("RGB", size).save(tmp_path / f"{name}.jpg")
    (tmp_path / "tags.csv").write_text(
        "image,tags\na.jpg,cat\npano.jpg,cat\ntall.jpg,dog\nwide.jpg,dog\n"
    )
    data = photo_settings(tmp_path, "fast").data
    lines = list(check_photos(data, 512).lines(1))
    assert (
        "very long: pano.jpg (576 x 43) and 1 more: CLIP sees few patches across it; raise "
        "clip.long_side in a --config file, or cut the photo into parts"
    ) in lines
    raised = check_photos(data, 512 * 576 // (6 * 43))
    assert raised.narrow == ("pano.jpg (576 x 43)",)
    assert check_photos(data, 512 * 576 // (6 * 43) + 1).narrow == ()
