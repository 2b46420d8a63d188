"""`wsss verify` and `wsss clean` on a finished run, and scores without the engine's memory."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.builders import write_shard
from wsss.artifacts import stage
from wsss.artifacts.checkpoint import load_checkpoint, save_checkpoint
from wsss.artifacts.checksum import json_with_checksum, write_checked_text
from wsss.artifacts.errors import ArtifactError
from wsss.artifacts.shard import Shard
from wsss.config.errors import ConfigError
from wsss.data.images.label_png import read_label_png, save_label_png
from wsss.pipeline.clean import clean, entries
from wsss.pipeline.products import PRODUCTS
from wsss.pipeline.runs import Runs
from wsss.pipeline.verify.run import verify
from wsss.score.image_counts_file import image_counts_path

from .conftest import CONFIG, RUN, Project

pytestmark = pytest.mark.workflow


@pytest.fixture(scope="module")
def copy(finished: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The finished project once more, with its times; tests may damage it."""
    root = tmp_path_factory.mktemp("copy") / "project"
    return Project(shutil.copytree(finished.root, root))


@contextmanager
def _restored(*paths: Path) -> Iterator[None]:
    """Put files back in the end, with their times."""
    pairs = [(path, path.with_name(f"{path.name}.aside")) for path in paths]
    for path, aside in pairs:
        shutil.copy2(path, aside)
    try:
        yield
    finally:
        for path, aside in pairs:
            aside.replace(path)


def _findings(project: Project, monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[str, str]]:
    monkeypatch.chdir(project.root)
    findings = verify(Runs(CONFIG), RUN)
    return {
        str(f.path.relative_to(f"results/{RUN}")): (f.status, f.reason)
        for f in findings
        if f.rule  # those without one follow from another
    }


def _run(project: Project, *arguments: str) -> tuple[int, str]:
    process = project.wsss(*arguments)
    text = process.communicate(timeout=120)[0]
    return process.returncode, text


def test_a_finished_run_is_as_configured(copy: Project) -> None:
    code, text = _run(copy, "verify", f"results/{RUN}", "--config", "tiny.yaml")
    assert code == 0, text
    count = int(text.split()[0])
    assert text == f"{count} artifacts, all as configured\n"
    # Other tests leave runs below that of the configuration, and tables of them.
    folders = {*PRODUCTS, "scores", "tables", "pictures"}
    files = [path for name in folders for path in (copy.results / name).rglob("*")]
    parts = {"work", ".cache", "png"}
    beside = {"quarantine.csv", "classes.json", "provenance.json", "manifest.csv.sha256",
              "inputs.json"}  # fmt: skip
    artifacts = [p for p in files if p.is_file() and p.name not in beside]
    artifacts = [p for p in artifacts if not set(p.parts) & parts and p.stem != "sweep"]
    artifacts += [p for p in copy.results.glob("masks/*/png/*") if p.is_dir()]
    artifacts.append(copy.results / "index.html")
    assert count == len(artifacts)


def test_a_changed_value_makes_stale_what_reads_it(copy: Project) -> None:
    changed = copy.root / "changed.yaml"
    changed.write_text(json.dumps(CONFIG | {"masks": {"crf": {"iterations": 5}}}))
    code, text = _run(copy, "verify", RUN, "--config", "config.yaml", "--config", changed.name)
    assert code == 1
    assert (
        f"results/{RUN}/masks/train/1-of-2.h5: stale: made with masks.crf.iterations 10, the "
        "configuration says 5; rerun: snakemake --cores all --configfile changed.yaml --forcerun "
        "masks\n"
    ) in text
    assert f"results/{RUN}/segmenter/weights.safetensors: stale: made from results" in text
    assert not any(line.startswith(f"results/{RUN}/cams/") for line in text.splitlines())
    with pytest.raises(ConfigError, match=f"whose runs are {RUN}; pass the configuration"):
        verify(Runs(CONFIG), "elsewhere")


def test_an_edited_table_is_noticed(copy: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    table = copy.results / "tables/table.csv"
    with _restored(table):
        table.write_text(table.read_text().replace("CAM", "CAN", 1))
        status, reason = _findings(copy, monkeypatch)["tables/table.csv"]
    assert status == "stale"
    assert "was edited" in reason


def test_a_tampered_run_is_noticed(copy: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    results = copy.results
    masks = results / "masks/train"
    png = next((masks / "png/1-of-2/label").glob("*.png"))
    cams = results / "cams/val/1-of-2.h5"
    swapped = [results / f"scores_grid/train/{part}-of-2.h5" for part in (1, 2)]
    other = results / "refiner_predictions/val/2-of-2.h5"
    weights, loss = results / "segmenter/weights.safetensors", results / "segmenter/loss.csv"
    cost = results / "refine/efficiency.json"
    record, counts = results / "scores/masks.val.json", results / "scores/cam.val.images.h5"
    picture = results / "pictures/val.png"
    gone = results / "tables/efficiency.md"
    edited = [png, cams, *swapped, other, weights, loss, cost, record, counts, picture, gone]
    with _restored(*edited):
        labels = read_label_png(png)
        labels[0, 0] ^= 1
        save_label_png(png, labels)
        content = bytearray(cams.read_bytes())
        content[len(content) // 2] ^= 1
        cams.write_bytes(content)
        first, second = (path.read_bytes() for path in swapped)
        swapped[0].write_bytes(second)
        swapped[1].write_bytes(first)
        with Shard(other) as shard:
            items, origin = list(shard), shard.provenance
        config = origin.config | {"masks.crf": origin.config["masks.crf"] | {"iterations": 3}}
        write_shard(other, "predictions", items, origin.model_copy(update={"config": config}))
        tensors, origin = load_checkpoint(weights)
        save_checkpoint(weights, tensors, origin.model_copy(update={"seed": 7}))
        loss.write_text(loss.read_text().replace("1,", "1,9", 1))
        measured = json.loads(cost.read_text()) | {"training": "0" * 64}
        del measured["sha256"]
        cost.write_text(json.dumps(json_with_checksum(measured)))
        rows = json.loads(record.read_text())
        del rows[0]["sha256"]
        rows[0]["miou"] = 0.99
        record.write_text(json.dumps([json_with_checksum(row) for row in rows]))
        counts.write_bytes((results / "scores/affinity.val.images.h5").read_bytes())
        with Image.open(picture) as image:
            image.load()
            image.putpixel((0, 0), (1, 2, 3))
            image.save(picture)
        gone.unlink()
        findings = _findings(copy, monkeypatch)
    expected = {
        "masks/train/png/1-of-2": ("damaged", f"label/{png.stem}.png was edited"),
        "cams/val/1-of-2.h5": ("damaged", "is damaged"),
        "scores_grid/train/1-of-2.h5": ("stale", "cams/1-of-2.h5"),
        "scores_grid/train/2-of-2.h5": ("stale", "its part of the split differs"),
        "refiner_predictions/val/2-of-2.h5": ("stale", "made with masks.crf.iterations 3"),
        "segmenter/weights.safetensors": ("stale", "made with seed 7, the configuration says 0"),
        "segmenter/loss.csv": ("damaged", "it was edited"),
        "refine/efficiency.json": ("stale", "of another training"),
        "scores/masks.val.json": ("damaged", "its miou is not what its confusion matrix gives"),
        "scores/cam.val.images.h5": ("damaged", "its record names"),
        "tables/table.csv": ("damaged", "scores/cam.val.images.h5"),  # its changes need it
        "pictures/val.png": ("damaged", "carries no provenance"),
        "tables/efficiency.md": ("missing", "is not there"),
    }
    for path, (status, reason) in expected.items():
        assert findings[path][0] == status, (path, findings[path])
        assert reason in findings[path][1], (path, findings[path])
    # what is held against these directly, and nothing else
    also = {
        "masks/train/1-of-2.h5",
        "masks/train/2-of-2.h5",
        "tables/table.md",
        "tables/table.html",
        *(f"tables/{name}.{end}" for name in ("classes", "pairs") for end in ("md", "csv", "html")),
    }
    also |= {f"predictions/val/{part}-of-2.h5" for part in (1, 2)}
    also |= {
        "scores/refiner.val.json",
        "scores/refined.train.json",
        "pictures/class_iou.png",
        "pictures/segmenter_loss.png",
        "index.html",
    }
    assert set(findings) - set(expected) <= also


def test_other_inputs_are_noticed(copy: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """A photograph, the truth, a list of the data set, and the manifest with a new checksum."""
    data, manifest = copy.root / "results/tiny-data", copy.results / "manifest/manifest.csv"
    photo = next((data / "JPEGImages").glob("train*.jpg"))
    truth = next((data / "SegmentationClass").glob("val*.png"))
    listed = data / "ImageSets/Segmentation/val.txt"
    with _restored(photo, truth, listed):
        photo.write_bytes(photo.read_bytes() + b" ")
        listed.write_text(listed.read_text() + "\n")
        save_label_png(truth, np.zeros_like(read_label_png(truth)))
        findings = _findings(copy, monkeypatch)
    status, reason = findings["manifest/manifest.csv"]
    assert status == "stale"
    assert f"'{photo.stem}'" in reason
    assert "val.txt, which has changed since" in reason
    for path in ("scores/masks.val.json", "pictures/val.png"):
        assert "other input 'truth'" in findings[path][1]
    assert "scores/masks.train.json" not in findings
    with _restored(manifest, manifest.with_name("manifest.csv.sha256")):
        lines = manifest.read_text().splitlines(keepends=True)
        write_checked_text(manifest, "".join([lines[0], *reversed(lines[1:])]))
        findings = _findings(copy, monkeypatch)
    status, reason = findings["manifest/manifest.csv"]
    assert status == "damaged"
    assert "manifest.csv is not what ingest wrote" in reason
    assert "other input 'manifest'" in findings["cams/train/1-of-2.h5"][1]


def test_other_packages_are_noticed(copy: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    versions = stage.package_versions() | {"numpy": "0.1"}
    monkeypatch.setattr(stage, "package_versions", lambda names: {**versions})
    findings = _findings(copy, monkeypatch)
    status, reason = findings["cams/train/1-of-2.h5"]
    assert status == "stale"
    assert "made with numpy" in reason
    assert "installed is 0.1" in reason


def test_scores_refuse_what_the_engine_has_forgotten(copy: Project) -> None:
    """Without `.snakemake` a change of the configuration reruns nothing."""
    record = copy.results / "scores/predictions.val.json"
    memory, aside = copy.root / ".snakemake", copy.root / ".memory"
    memory.rename(aside)
    copy.configure(cams={"affinity": {"enabled": True, "power": 1}})
    try:
        with _restored(record, image_counts_path(record)):
            record.unlink()
            target = f"results/{RUN}/scores/predictions.val.json"
            done = copy.snakemake("--", target, check=False)
            log = (copy.results / "logs/score/predictions.val.log").read_text()
    finally:
        copy.configure()
        shutil.rmtree(memory)
        aside.rename(memory)
    assert done.returncode != 0
    assert "rule cams" not in done.stdout + done.stderr
    assert f"results/{RUN}/predictions/val/1-of-2.h5: its stage cams was made with" in log
    assert "cams.affinity.power 2, the configuration says 1" in log
    assert "snakemake --cores all --forcerun cams" in log


def test_cleaning_reruns_nothing(copy: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    refine, segmenter = copy.results / "refine/work", copy.results / "segmenter/work"
    size = sum(path.stat().st_size for path in segmenter.rglob("*") if path.is_file())
    code, text = _run(copy, "clean", f"results/{RUN}", "--dry-run", "--what", "all")
    assert code == 0
    assert f"{segmenter.relative_to(copy.root)}: would go, {size / 2**20:.1f} MiB" in text
    assert segmenter.is_dir()
    with (refine / ".lock").open("a+") as lock:
        fcntl.lockf(lock, fcntl.LOCK_EX)  # a training that runs
        code, text = _run(copy, "clean", RUN)
    assert f"{refine.relative_to(copy.root)}: stays" in text
    assert not segmenter.exists()
    assert list(copy.results.rglob(".cache"))
    (refine / "state.safetensors").touch()  # as of a training that went on
    locks = copy.root / ".snakemake/locks"
    locks.mkdir(exist_ok=True)
    with _engine(copy):
        (locks / "0.input.lock").touch()
        with pytest.raises(ArtifactError, match="an engine is running there; wait for it"):
            clean(copy.results, "all")
    temporary = copy.results / "scores/.cam.json.tmp-999999999"
    temporary.touch()
    planes = {
        part: copy.results / f"predictions/val/{part}.planes" for part in ("1-of-2", "1-of-3")
    }
    for path in planes.values():
        path.touch()
    _run(copy, "clean", RUN)  # the locks of an engine that was killed are no hindrance
    assert not planes["1-of-2"].exists()  # its shard is there
    assert planes["1-of-3"].exists()
    earlier = _as_one_part(copy.results / "masks/train")
    monkeypatch.chdir(copy.root)
    assert [finding.text("snakemake") for finding in verify(Runs(CONFIG), RUN, quick=True)] == [
        f"results/{RUN}/masks/train/png/1-of-1: stale: is of another number of parts than shards "
        "(2); delete it"
    ]
    _set_times(earlier, time.time_ns())  # made last, and then `shards` was set back to 2
    assert not any("makes it again" in entry.why for entry in entries(copy.results, "cache"))
    _set_times(earlier, 10**18)
    named = [copy.results / "masks/train/png/1-of-2/label" / f"1-of-{n}.png" for n in (2, 1)]
    for year, path in enumerate(named):  # photos may be called so
        path.touch()
        os.utime(path, (year, year))
    code, text = _run(copy, "clean", RUN, "--what", "all")
    assert all(path.exists() for path in named)
    for path in named:
        path.unlink()
    assert "png/1-of-1: deleted" in text
    assert "of 1 part, the newest are of 2; shards: 1 makes it again" in text
    assert not any(path.exists() for path in earlier)
    assert not planes["1-of-3"].exists()
    assert code == 0
    assert "is not finished" in text
    assert refine.is_dir()
    assert not temporary.exists()
    assert not list(copy.results.rglob(".cache"))
    assert not copy.would_run()
    code, text = _run(copy, "verify", RUN, "--quick", "--config", "tiny.yaml")
    assert code == 0, text


@contextmanager
def _engine(project: Project) -> Iterator[None]:
    """An engine that runs in a project, as far as others see."""
    code = (
        "import sys, pathlib, wsss.pipeline.engine_lock as lock; "
        "lock.remove_dead_locks(pathlib.Path()); print(flush=True); sys.stdin.read()"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], cwd=project.root, **pipes) as engine:
        assert engine.stdout
        engine.stdout.readline()
        yield
        engine.communicate()


def _as_one_part(folder: Path) -> list[Path]:
    """Masks and PNGs as of a run with one part, of two that the folder has."""
    names = ("1-of-2.h5", "png/1-of-2.json", "png/1-of-2")
    earlier = []
    for path in (folder / name for name in names):
        earlier.append(target := path.with_name(path.name.replace("of-2", "of-1")))
        if path.is_dir():
            shutil.copytree(path, target)
        else:
            shutil.copy(path, target)
    return earlier


def _set_times(paths: list[Path], ns: int) -> None:
    for path in paths:
        os.utime(path, ns=(ns, ns))


def test_cleaning_takes_the_folder_of_a_run_alone(copy: Project) -> None:
    with pytest.raises(ArtifactError, match="is not the folder of a run"):
        clean(copy.root / "results/tiny-data", "all")
