"""Where the masks of a run are found, and what is refused, as `wsss export` says it."""

import json
import os
import shutil
import stat
import subprocess
import time
from pathlib import Path

import pytest
from PIL import Image

from tests.builders import provenance, write_shard
from tests.workflow.jobs import python_of_jobs
from wsss.artifacts.checksum import json_with_checksum
from wsss.artifacts.errors import ArtifactError
from wsss.artifacts.shard import Item, Shard
from wsss.config.data import DataConfig
from wsss.config.score import PicturesConfig
from wsss.data.errors import ImageError
from wsss.data.images import read
from wsss.export.errors import ExportError
from wsss.export.run import export
from wsss.export.source import open_run
from wsss.export.task import ExportTask
from wsss.score.page.files import FILES, RunFiles, Shown, write_shown

from .conftest import Results, make_results


def wsss(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [python_of_jobs(), "-m", "wsss", *map(str, arguments)],
        cwd=cwd, text=True, capture_output=True, check=False,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip


@pytest.mark.slow
def test_the_command_exports_and_refuses_in_one_sentence(results: Results, tmp_path: Path) -> None:
    done = wsss("export", "coco", results.folder, "--out", "coco", "--split", "val", cwd=tmp_path)
    assert (done.returncode, done.stdout.splitlines()[0][:14]) == (0, "COCO: 2 images")
    assert sorted(p.name for p in (tmp_path / "coco/annotations").iterdir()) == [
        "instances_val.json"
    ]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.tex").touch()
    for arguments, text in (
        (("coco", results.folder, "--out", "mine"), "mine: holds other things, e.g. 'thesis.tex'"),
        (("yolo", "mine", "--out", "y"), "mine: holds no masks (expected manifest/manifest.csv"),
        (("yolo", results.folder, "--out", "y", "--product", "cams"), "'cams' is not one of"),
    ):
        failed = wsss("export", *arguments, cwd=tmp_path)
        message = " ".join(failed.stderr.split())
        assert failed.returncode in (1, 2)
        assert text in message
        assert "Traceback" not in message
    assert (tmp_path / "mine/thesis.tex").read_bytes() == b""


def test_an_older_export_is_replaced_on_demand_alone(results: Results, tmp_path: Path) -> None:
    task = ExportTask(open_run(results.folder, "label"), photos="none")
    for form, out in (("coco", tmp_path / "coco"), ("cvat", tmp_path / "masks.zip")):
        export(form, task, out)
        with pytest.raises(ExportError, match=r"older export|there already; name a new file"):
            export(form, task, out)
        export(form, task, out, overwrite=True)
    with pytest.raises(ExportError, match="nowhere: no such folder; pass the results of a run"):
        open_run(tmp_path / "nowhere", "label")


@pytest.mark.parametrize("out", [".", "sub/..", "..", "../work"])
def test_the_working_folder_is_not_replaced(
    results: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str
) -> None:
    (tmp_path / "work/sub").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "work")
    task = ExportTask(open_run(results.folder, "label"), photos="none")
    with pytest.raises(ExportError, match="is the working folder, or holds it; name a new folder"):
        export("folder", task, Path(out))
    monkeypatch.setattr(Path, "is_mount", lambda path: path.name == "sub")
    with pytest.raises(ExportError, match="sub: is a mount point; name a new folder in it"):
        export("folder", task, Path("sub"))
    export("folder", task, Path("sub/../new"))
    assert (tmp_path / "work/new/classes.csv").is_file()


def test_a_link_to_an_empty_folder_stays(results: Results, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to("disk")
    task = ExportTask(open_run(results.folder, "label"), photos="none")
    export("folder", task, tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "disk/classes.csv").is_file()


def test_masks_are_found_from_the_folder_above_and_by_the_result_page(
    results: Results, tmp_path: Path
) -> None:
    project = tmp_path / "project"
    shutil.copytree(results.folder, project / "results/tiny")
    assert open_run(project, "label").images == 9
    assert open_run(project, "label", ("train",)).samples.keys() == {"train"}
    one = project / "results/tiny/one"  # a run that shares the masks of its sweep
    (one / "page").mkdir(parents=True)
    shards = [f"results/tiny/masks/train/{n}-of-2.h5" for n in (1, 2)]
    content = {
        "name": "tiny.one", "manifest": "results/tiny/manifest", "shards": {"masks": shards},
        "records": [], "supervision": "tags", "data": {}, "pictures": {},
    }  # fmt: skip
    (one / "page/files.json").write_text(json.dumps(json_with_checksum(content)))
    assert open_run(one, "label").images == 7
    shutil.copytree(results.folder, project / "results/other")
    with pytest.raises(ExportError, match=r"holds 2 runs; name one of them: .*other, .*tiny"):
        open_run(project, "label")


def write_page(run: Path, shards: list[Path], manifest: Path) -> None:
    """The file of a result page that shows these masks."""
    run_files = RunFiles("tiny", manifest, {"masks": shards}, ())
    contents = {}
    for path in shards:
        with Shard(run.parents[1] / path) as shard:
            contents[str(path)] = shard.content
    (run / "page").mkdir(exist_ok=True)
    shown = Shown(run_files, "tags", DataConfig(), PicturesConfig())
    write_shown(run / "page", shown, provenance("page", inputs=contents), {}, {})


def set_time(seconds: float, *paths: Path) -> None:
    for path in paths:
        os.utime(path, (seconds, seconds))


@pytest.fixture
def shortened(results: Results, tmp_path: Path) -> Path:
    """A run whose configuration dropped the split `val` before its page was made."""
    run = tmp_path / "results/tiny"
    shutil.copytree(results.folder, run)
    set_time(1000, *(run / "masks").glob("*/*.h5"))
    train = [Path(f"results/tiny/masks/train/{n}-of-2.h5") for n in (1, 2)]
    write_page(run, train, Path("results/tiny/manifest"))
    return run


def test_masks_of_a_split_that_a_run_dropped_are_not_exported(shortened: Path) -> None:
    assert open_run(shortened, "label").samples.keys() == {"train"}
    with pytest.raises(ExportError, match="holds no masks of val"):
        open_run(shortened, "label", ("val",))
    val = shortened / "masks/val/1-of-1.h5"
    val = val.rename(val.with_name("1-of-2.h5"))  # nor must they be whole
    assert open_run(shortened, "label").samples.keys() == {"train"}
    set_time(time.time() + 9, val)  # but those that were made after the page
    with pytest.raises(ExportError, match="1 of 2 parts are missing"):
        open_run(shortened, "label")
    (shortened / "page" / FILES).write_text("{")  # damaged: it says nothing
    set_time(1000, val.rename(val.with_name("1-of-1.h5")))
    assert open_run(shortened, "label").samples.keys() == {"train", "val"}


def test_a_renamed_run_exports_its_own_masks(shortened: Path, results: Results) -> None:
    """Its page still names those of the folder that it was, where another run may be by now."""
    renamed = shortened.rename(shortened.with_name("renamed"))
    shutil.copytree(results.folder, shortened)
    (shards,) = open_run(renamed, "label").shards.values()
    assert shards == tuple(renamed / f"masks/train/{n}-of-2.h5" for n in (1, 2))


def test_a_run_whose_masks_another_makes_does_not_export_its_old_ones(
    shortened: Path, results: Results
) -> None:
    with Shard(results.folder / "masks/val/1-of-1.h5") as shard:
        item = shard.read("v1")
    other = Path("results/other/masks/val/1-of-1.h5")
    write_shard(shortened.parents[1] / other, "masks", [item], provenance("masks"))
    write_page(shortened, [other], Path("results/tiny/manifest"))
    source = open_run(shortened, "label")
    assert [s.id for s in source.samples["val"]] == ["v1"]
    assert source.images == 1


def test_a_run_that_is_not_finished_is_refused(results: Results, tmp_path: Path) -> None:
    run = tmp_path / "results/tiny"
    shutil.copytree(results.folder, run)
    (run / "masks/train/2-of-2.h5").unlink()
    with pytest.raises(ExportError, match=r"1 of 2 parts are missing, e\.g\. 2-of-2\.h5; run the"):
        open_run(run, "label")
    (sample,) = (s for s in open_run(results.folder, "label").samples["train"] if s.id == "a")
    item = Item("a", {}, {"size": [sample.height + 1, sample.width], "classes": []})
    write_shard(run / "masks/train/1-of-1.h5", "masks", [item], provenance("masks"))
    with pytest.raises(ArtifactError, match=r"1-of-1\.h5: 'a' was made from a photo of"):
        open_run(run, "label")


def test_a_failed_export_leaves_nothing_and_photos_stay_as_they_are(
    results: Results, tmp_path: Path
) -> None:
    source = open_run(results.folder, "label", ("val",))
    photo = source.samples["val"][0].path
    content = photo.read_bytes()
    photo.chmod(0o600)
    linked = ExportTask(source, photos="link")
    export("folder", linked, tmp_path / "linked")
    target = tmp_path / "linked/images/val/v1.jpg"
    assert target.is_symlink()
    assert target.read_bytes() == content
    assert stat.S_IMODE(photo.stat().st_mode) == 0o600
    export("folder", ExportTask(source, photos="none"), tmp_path / "bare")
    assert not (tmp_path / "bare/images").exists()
    photo.rename(photo.with_name("gone"))
    try:
        with pytest.raises(ExportError, match=r"v1\.jpg: the photo is gone; .* \(--photos none\)"):
            export("yolo", ExportTask(source), tmp_path / "yolo")
    finally:
        photo.with_name("gone").rename(photo)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bare", "linked"]


def test_a_photo_that_changed_since_ingest_is_not_exported(tmp_path: Path) -> None:
    """Its mask belongs to another photo."""
    results = make_results(tmp_path)
    photo = tmp_path / "photos/a.jpg"
    Image.open(photo).transpose(Image.Transpose.ROTATE_90).save(photo)
    for photos in ("copy", "link"):
        with pytest.raises(ImageError, match=r"a\.jpg: has changed since ingest"):
            results.export("folder", tmp_path / photos, photos=photos)
    results.export("folder", tmp_path / "none", photos="none")


def test_large_turned_photos_are_written_upright(
    results: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What ingest accepted is exported: neither our limit nor Pillow's holds here."""
    monkeypatch.setattr(read, "DEFAULT_MAX_PIXELS", 100)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    text = results.export("folder", tmp_path / "out")
    assert "1 photo stored turned, written upright" in text


@pytest.mark.parametrize("root", ["http://host/images", "http://host/images/"])
def test_the_address_of_photos_needs_no_slash(results: Results, tmp_path: Path, root: str) -> None:
    results.export("label-studio", tmp_path / "ls", photo_root=root)
    tasks = json.loads((tmp_path / "ls/tasks.json").read_text())
    assert any(task["data"]["image"] == "http://host/images/train/a.jpg" for task in tasks)
