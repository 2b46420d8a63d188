"""`wsss photos` on a folder of drawn photos: the real command, and what a rerun computes."""

import csv
import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.machines import disk_in_memory
from tests.workflow.conftest import jobs
from tests.workflow.jobs import forking, python_of_jobs
from wsss.artifacts.shard import Shard
from wsss.demo.scenes import render_scene
from wsss.photos.record import read_record

_WEIGHTS = "${WSSS_PACKAGE}/demo/weights/demo-vit-p8"
_SEGMENTER = """
compute: {workers: 1}
retrain: {enabled: true, model: clip-vit, iterations: 2, batch: 2, crop: 64, warmup: 0, threads: 1}
predict: {scales: [1.0], crf: false}
"""
CLIP = ("--clip", f"{_WEIGHTS}.json", "--weights", f"{_WEIGHTS}.safetensors")


def draw_photos(folder: Path, names: Mapping[str, int]) -> dict[str, list[str]]:
    """Draw scenes as photos; gives their tags."""
    tags = {}
    for name, index in names.items():
        scene = render_scene(7, "train", index)
        path = folder / f"{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(scene.image).save(path, quality=92)
        tags[name] = list(scene.tags)
    return tags


def write_tags(folder: Path, tags: Mapping[str, list[str]]) -> None:
    with (folder / "tags.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["image", "tags"])
        writer.writerows([f"{name}.jpg", ";".join(words)] for name, words in tags.items())


def small(folder: Path) -> tuple[str, str]:
    """A configuration with which the demo's CLIP sees photos at their size, as in the demo."""
    (folder / "small.yaml").write_text("clip: {long_side: null}")
    return "--config", "small.yaml"


def run(folder: Path, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """A command of this environment, which need not be active, in a folder; its jobs fork."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("WSSS_")}
    done = subprocess.run(
        [python_of_jobs(), "-m", *command],
        cwd=folder,
        env=forking(environment),
        text=True,
        capture_output=True,
        check=False,
    )
    if check:
        assert done.returncode == 0, done.stdout + done.stderr
    return done


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def counts(out: Path, stage: str) -> str:
    """What the log of a stage says of its photos."""
    (log,) = (out / f"results/photos/logs/{stage}").glob("train.*.log")
    counts_in_log = re.findall(r"\d+ images: \d+ reused, \d+ computed", log.read_text("utf-8"))
    return counts_in_log[-1]


@pytest.mark.workflow
@pytest.mark.slow
def test_photos_to_masks_and_again(tmp_path: Path) -> None:
    photos, out = tmp_path / "my photos", tmp_path / "my photos-masks"
    first = {"cat": 0, "sub/b #1 100%": 1, "c": 2, "d": 3, "e": 4, "f": 5}
    tags = draw_photos(photos, first)
    write_tags(photos, tags)
    command = ("wsss", "photos", "my photos", *small(tmp_path), "--cores", "2", *CLIP)
    screen = run(tmp_path, *command).stdout
    words = sorted({word for listed in tags.values() for word in listed})
    assert "photos: 6 with tags" in screen
    assert f"masks of 6 photos: {out.name}/masks" in screen
    assert f"page: {(out / 'index.html').as_uri()}" in screen

    before = table(out / "classes.csv")
    assert [row["name"] for row in before] == ["background", *words]
    assert [row["id"] for row in before] == [str(label) for label in range(len(before))]
    check_tree(out, tags)
    old = {name: (out / f"masks/{name}.png").stat() for name in first}
    mask_bytes = (out / "masks/c.png").read_bytes()

    # One photo is new, one is edited in place, one is gone, one has a word that comes first.
    (photos / "d.jpg").unlink()
    changed = draw_photos(photos, {"sub/new": 9, "e": 10})
    tags = {**tags, **changed, "f": ["aardvark", *tags["f"]]}
    del tags["d"]
    write_tags(photos, tags)
    run(tmp_path, *command)
    for stage in ("cams", "masks"):
        assert counts(out, stage) == "6 images: 3 reused, 3 computed"
    after = table(out / "classes.csv")
    assert after[: len(before)] == before
    assert after[len(before)]["name"] == "aardvark"
    check_tree(out, tags)
    assert not list(out.glob("*/d.*"))
    assert (out / "masks/c.png").read_bytes() == mask_bytes
    for name in ("cat", "sub/b #1 100%", "c"):
        assert (out / f"masks/{name}.png").stat().st_mtime_ns == old[name].st_mtime_ns

    # The engine continues it by itself: nothing is left, and a lost mask is drawn again.
    text = (out / "config.yaml").read_text("utf-8")
    engine = shlex.split(next(line for line in text.splitlines() if "snakemake" in line)[1:])
    assert jobs(run(tmp_path, *engine, "--dry-run").stdout) == {}
    (out / "masks/c.png").unlink()
    dry = run(tmp_path, *command, "--dry-run").stdout
    assert re.findall(r"^(ingest|cams|masks|gallery) +1$", dry, re.MULTILINE) == ["gallery"]
    run(tmp_path, *engine)
    assert (out / "masks/c.png").read_bytes() == mask_bytes

    # A segmenter that is added learns from the masks, and labels the same photos without tags.
    (tmp_path / "segmenter.yaml").write_text(_SEGMENTER)
    done = run(tmp_path, *command, "--config", "segmenter.yaml")
    page = (out / "results/photos/index.html").as_uri()
    assert f"its masks of these photos: {page}" in done.stdout
    assert page not in done.stderr  # one name of it is enough
    with Shard(out / "results/photos/predictions/train/1-of-1.h5", kind="predictions") as shard:
        assert set(shard.ids) == set(tags)
    assert '"key":"prediction"' in (out / "results/photos/index.html").read_text("utf-8")
    assert (out / "masks/c.png").read_bytes() == mask_bytes
    check_commands_on_the_run(tmp_path, out.name)


def check_commands_on_the_run(folder: Path, out: str) -> None:
    """They take the folder that was written; `tests/pipeline/test_run_folder.py` has more names."""
    screen = run(folder, "wsss", "show", out).stdout
    assert "masks of 6 photos: " in screen
    assert "segmenter: " in screen
    screen = run(folder, "wsss", "clean", f"{out}/results/photos", "--dry-run").stdout
    assert "results/photos/segmenter/work: would go" in screen
    screen = run(folder, "wsss", "verify", out, "--quick").stdout
    assert screen.endswith(" artifacts, all as configured\n")
    for command in (("predict", "my photos", "--weights"), ("export", "folder")):
        run(folder, "wsss", *command, out, "--out", "of the run")
        shutil.rmtree(folder / "of the run")


@pytest.mark.workflow
@pytest.mark.slow
def test_photos_that_moved_and_photos_that_are_gone(tmp_path: Path) -> None:
    """The page links to where a photo is now; `wsss clean` leaves no masks of photos that go."""
    photos, out = tmp_path / "p", tmp_path / "p-masks"
    tags = draw_photos(photos, {"a": 0, "sub/b": 1, "c": 2})
    write_tags(photos, tags)
    command = ("wsss", "photos", "p", *small(tmp_path), "--cores", "2", *CLIP)
    run(tmp_path, *command)
    old = (out / "masks/c.png").stat()
    (photos / "c.jpg").rename(photos / "c.jpeg")
    table_of_tags = photos / "tags.csv"
    table_of_tags.write_text(table_of_tags.read_text("utf-8").replace("c.jpg", "c.jpeg"))
    run(tmp_path, *command)
    assert (out / "masks/c.png").stat().st_mtime_ns == old.st_mtime_ns
    page = (out / "index.html").read_text("utf-8")
    assert "../p/c.jpeg" in page
    assert "../p/c.jpg" not in page

    run(out, "wsss", "clean", "results/photos", "--what", "cache")
    assert not list(out.rglob(".cache/gallery*"))
    (photos / "sub/b.jpg").unlink()
    write_tags(photos, {"a": tags["a"], "c": tags["c"]})
    table_of_tags.write_text(table_of_tags.read_text("utf-8").replace("c.jpg", "c.jpeg"))
    run(tmp_path, *command)
    folders = [out / name for name in ("masks", "overlays", "thumbnails")]
    names = {path.stem for folder in folders for path in folder.rglob("*")}
    assert names == {"a", "c"}


def check_tree(out: Path, tags: Mapping[str, list[str]]) -> None:
    """Masks, overlays, tables and page agree with the tags."""
    classes = table(out / "classes.csv")
    label_of = {row["name"]: int(row["id"]) for row in classes}
    record = read_record(out / "results/photos/gallery.json")
    assert record.folder == Path()  # as the engine sees it
    assert all(entry.is_drawn(out) for entry in record.entries)
    assert {entry.id for entry in record.entries} == set(tags)
    for name, words in tags.items():
        with Image.open(out / f"masks/{name}.png") as image:
            assert image.mode == "P"
            palette = np.array(image.getpalette()).reshape(-1, 3)
            labels = np.array(image)
        assert set(np.unique(labels)) <= {0, *(label_of[word] for word in words)}
        for row in classes:
            assert bytes(palette[int(row["id"])].tolist()).hex() == row["color"][1:]
        assert (out / f"overlays/{name}.jpg").is_file()
    rows = table(out / "review.csv")
    assert {(row["photo"], row["tag"]) for row in rows} == {
        (name, word) for name, words in tags.items() for word in words
    }
    for row in rows:
        with Image.open(out / f"masks/{row['photo']}.png") as image:
            share = float(np.mean(np.array(image) == label_of[row["tag"]]))
        assert float(row["share_of_pixels"]) == pytest.approx(share, abs=1e-4)
        assert ("tag without a pixel" in row["flags"]) == (share == 0)
        assert 0 <= float(row["clip_probability"]) <= 1
    data = (out / "index.html").read_text("utf-8").split('id="data">')[1].split("</script>")[0]
    assert {photo["id"] for photo in json.loads(data)["photos"]} == set(tags)


@pytest.mark.slow
def test_what_is_said_before_anything_runs(tmp_path: Path) -> None:
    """A dry run names doubtful words; each fault is one message that says what to do."""
    photos = tmp_path / "p"
    draw_photos(photos, {"a": 0, "b": 1, "c": 2})

    def error(*arguments: str) -> str:
        done = run(tmp_path, "wsss", "photos", "p", *arguments, check=False)
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
        assert not (tmp_path / "p-masks").exists()
        return done.stderr

    assert "wsss tags suggest" in error()
    write_tags(photos, {"a": ["cow"], "b": ["cow"], "c": ["cowz"], "d": ["cow"]})
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/config.yaml").write_text("name: mine")
    assert "--out mine: holds 'config.yaml', which this" in error("--out", "mine")
    assert "--out p/out: lies in the folder of the photos" in error("--out", "p/out")
    assert "--weights: none.pt: no such file" in error("--weights", "none.pt")
    (tmp_path / "name.yaml").write_text("name: pets")
    assert "--config: leave out name; --out says where" in error("--config", "name.yaml")
    screen = run(tmp_path, "wsss", "photos", "p", "--dry-run", *CLIP).stdout
    assert "cow 2, cowz 1" in screen
    memory = r"^memory: [abc]\.jpg takes about 0\.4 GB in .*; [\d.]+ GB are free$"
    assert re.search(memory, screen, re.MULTILINE)
    assert "cowz 1: close to cow 2, meant?" in screen
    assert "d.jpg: missing file" in screen
    assert "gallery" in screen
    assert not (tmp_path / "p-masks").exists()


@pytest.mark.workflow
def test_a_disk_that_is_full_from_the_start(tmp_path: Path) -> None:
    """Not even the engine's notes can be written; the last line names the folder all the same."""
    write_tags(tmp_path / "p", draw_photos(tmp_path / "p", {"a": 0, "b": 1}))
    (tmp_path / "disk").mkdir()
    with disk_in_memory(tmp_path / "disk", "64k") as disk:
        out = disk / "out"
        done = run(tmp_path, "wsss", "photos", "p", "--out", str(out), *CLIP, check=False)
    assert done.returncode == 1
    last = done.stderr.rstrip().splitlines()[-1]
    assert last.startswith(f"error: {out}: no space is left on this disk; free some, or choose")
