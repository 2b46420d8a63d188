"""Records and tables name tags that were changed on purpose."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from wsss.artifacts.stage import STAGES
from wsss.clip.tags.stage import run as change_tags
from wsss.config.load import from_mapping
from wsss.config.model import Config
from wsss.data.manifest_folder import load, load_given
from wsss.score.figures.lines import noise_chart, noise_panels
from wsss.score.image_counts_file import read_scored
from wsss.score.metrics.counting import ProductError
from wsss.score.record import Record
from wsss.score.tables.comparison import make_comparison
from wsss.score.tables.write import make_table

from .conftest import Run


def _config(run: Run, **noise: Any) -> Config:
    values = run.config.model_dump(mode="json", exclude={"tag_noise"})
    return from_mapping(values | {"tag_noise": noise})


def _scored(run: Run, name: str, **noise: Any) -> tuple[Path, list[Record]]:
    """Records of the blob, which is made from tags alone."""
    config, folder = _config(run, **noise), run.folder
    manifest = run.manifest_dir
    if config.tag_noise.enabled:
        arguments = STAGES["tag_noise"].arguments(config)
        change_tags(folder / "manifest", folder / name, folder / "cache", **arguments)
        manifest = folder / name
    out = folder / f"{name}.json"
    other = Run(folder, config, run.samples, run.truth, run.photos)
    other.__class__ = type("At", (Run,), {"manifest_dir": manifest})
    return out, other.score("blob", [], out)


def test_precision_and_recall_are_those_of_the_tags(run: Run) -> None:
    _, records = _scored(run, "noisy", dropped=0.6, added=0.7, seed=2)
    noisy = {s.id: set(s.tags) for s in load(run.folder / "noisy")[0]}
    given = {s.id: set(s.tags) for s in load(run.manifest_dir)[0]}
    pairs = [(image, k) for image, tags in given.items() for k in tags]
    used = [(image, k) for image, tags in noisy.items() for k in tags]
    assert set(used) - set(pairs)
    assert set(pairs) - set(used)
    quality = records[0].tag_quality
    assert quality is not None
    assert quality.precision == pytest.approx(len(set(used) & set(pairs)) / len(used))
    assert quality.recall == pytest.approx(len(set(used) & set(pairs)) / len(pairs))
    assert quality.images == len(given)
    assert quality.left_out == sum(image not in noisy for image in given)
    assert records[0].provenance.config["tag_noise"]["seed"] == 2
    # Truth and tags are compared by the given tags.
    assert records[0].truth_and_tags == _scored(run, "plain")[1][0].truth_and_tags


def test_tags_that_are_not_as_configured_are_not_scored(run: Run) -> None:
    _scored(run, "noisy", dropped=0.5)
    plain = Run(run.folder, _config(run, dropped=0.5), run.samples, run.truth, run.photos)
    with pytest.raises(ProductError, match="has not tags that differ on purpose, tag_noise asks"):
        plain.score("blob", [], run.folder / "wrong.json")
    other = Run(run.folder, run.config, run.samples, run.truth, run.photos)
    other.__class__ = type("At", (Run,), {"manifest_dir": run.folder / "noisy"})
    with pytest.raises(ProductError, match="has tags that differ on purpose"):
        other.score("blob", [], run.folder / "wrong.json")
    assert load_given(run.folder / "noisy") is not None


def test_tables_name_the_noise(make_run: Callable[..., Run], tmp_path: Path) -> None:
    run = make_run(12, score={"cam_thresholds": "fixed"})
    files = {
        "given": _scored(run, "given")[0],
        "removed": _scored(run, "removed", dropped=0.5)[0],
        "added": _scored(run, "added", added=0.25)[0],
    }
    make_table([files["removed"]], tmp_path)
    text = (tmp_path / "table.md").read_text()
    assert "TAGS CHANGED ON PURPOSE in train: given tags, 50 % removed; against" in text
    assert "on purpose" not in _table(files["given"], tmp_path).casefold()
    rows = {label: read_scored([path]) for label, path in files.items()}
    make_comparison(rows, tmp_path, "noise")
    lines = (tmp_path / "sweep.md").read_text().splitlines()
    head = next(line for line in lines if line.startswith("| run |"))
    assert head.startswith("| run | tag precision | tag recall | centred blob")
    quality = {label: row[0].record.tag_quality for label, row in rows.items()}
    assert next(line for line in lines if line.startswith("| given")).startswith(
        "| given | 100.0 | 100.0 |"
    )
    recall = 100 * quality["removed"].recall
    assert any(line.startswith(f"| removed | 100.0 | {recall:.1f} |") for line in lines)
    assert any(line.startswith("- removed: TAGS CHANGED ON PURPOSE in train") for line in lines)
    with (tmp_path / "sweep.csv").open() as stream:
        recalls = {row["run"]: row["tag_recall"] for row in csv.DictReader(stream)}
    assert recalls["given"] == ""
    assert float(recalls["removed"]) == quality["removed"].recall


def _table(path: Path, folder: Path) -> str:
    make_table([path], folder)
    return (folder / "table.md").read_text()


def test_a_panel_per_kind_of_noise(run: Run, tmp_path: Path) -> None:
    shares = {"given": {}, "a": {"dropped": 0.5}, "b": {"dropped": 0.8}, "c": {"added": 0.4}}
    shares |= {"both": {"dropped": 0.3, "added": 0.3}}
    mious = {"given": 0.5, "a": 0.4, "b": 0.2, "c": 0.3, "both": 0.1, "clip": 0.45}
    records, files = {}, []
    for name, noise in shares.items():
        path, scored = _scored(run, name, **noise)
        files.append(path)
        records[name] = scored[0].model_copy(update={"product": "cam", "miou": mious[name]})
    quality = records["a"].tag_quality
    noise = quality.noise | {"source": "clip", "dropped": 0.0}
    clip = {"miou": mious["clip"], "tag_quality": quality.model_copy(update={"noise": noise})}
    records["clip"] = records["a"].model_copy(update=clip)
    repeated = records["a"].model_copy(update={"seed": 1, "miou": 0.3})
    removed, added = noise_panels([*records.values(), repeated])
    assert removed.series == {"CAM, train": {0.0: [50.0], 50.0: [40.0, 30.0], 80.0: [20.0]}}
    assert added.series == {"CAM, train": {0.0: [50.0], 40.0: [30.0]}}
    assert removed.levels == added.levels == {"CAM, train": pytest.approx(45.0)}
    assert [panel.x_label for panel in noise_panels([records["given"], records["c"]])] == [
        "images with a wrong tag added (%)"
    ]
    with pytest.raises(Exception, match="no run has removed or added tags; set tag_noise"):
        noise_chart(files, tmp_path / "chart.png")  # the blob alone, which is not drawn
