from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from wsss.artifacts.digest import digest_json
from wsss.artifacts.errors import ArtifactError
from wsss.artifacts.stage import STAGES
from wsss.config.load import from_mapping
from wsss.config.model import Config
from wsss.data.manifest import Manifest, Sample
from wsss.score.figures import curves
from wsss.score.figures.contact_sheet import contact_sheet, sample_images
from wsss.score.figures.curves import class_chart, loss_curve, smoothed
from wsss.score.figures.overlay import paint_heat, paint_labels
from wsss.score.figures.sheet_layout import CELL, Row, draw_sheet
from wsss.score.record import write_records
from wsss.score.truth.find import TruthError

from ..conftest import Run
from ..tables.test_write import make_record, records

BLANK = np.zeros((90, 120, 3), np.uint8)
PALETTE = np.arange(256, dtype=np.uint8)[:, None] * np.array([[3, 5, 7]], np.uint8)


def sample(name: str, *tags: int) -> Sample:
    return Sample(name, "train", Path(name), 10, 10, "", tags)


def test_choice_is_spread_over_the_classes_and_fixed() -> None:
    many = [sample(f"common{n}", 0) for n in range(30)]
    few = [sample("rare1", 1), sample("rare2", 2), sample("both", 1, 2), sample("none")]
    manifest = Manifest((*many, *few))
    shown = sample_images(manifest, 4)
    tags = {tag for s in shown for tag in s.tags}
    assert tags == {0, 1, 2}
    assert len(shown) == 4
    shuffled = sample_images(Manifest((*few, *many[::-1])), 4)
    assert {s.id for s in shuffled} == {s.id for s in shown}
    assert sample_images(manifest, 99) == list(manifest)
    assert sample_images(Manifest(()), 4) == []


def chosen_plainly(manifest: Manifest, count: int) -> list[Sample]:
    """The rule of `sample_images` word for word; each turn looks at all images."""
    remaining = sorted(manifest, key=lambda sample: digest_json(sample.id))
    shown: Counter[int] = Counter()
    ids: set[str] = set()
    while remaining and len(ids) < count:
        tags = {tag for sample in remaining for tag in sample.tags}
        rarest = min(tags, key=lambda tag: (shown[tag], tag), default=None)
        pick = next((s for s in remaining if rarest is None or rarest in s.tags), remaining[0])
        remaining.remove(pick)
        ids.add(pick.id)
        shown.update(pick.tags)
    return [sample for sample in manifest if sample.id in ids]


@given(
    tags=st.lists(st.lists(st.integers(0, 5), max_size=3, unique=True), max_size=40),
    count=st.integers(0, 45),
    seed=st.integers(0, 9),
)
def test_the_choice_follows_the_plain_rule(tags: list[list[int]], count: int, seed: int) -> None:
    manifest = Manifest(tuple(sample(f"{seed}-{n}", *some) for n, some in enumerate(tags)))
    assert sample_images(manifest, count) == chosen_plainly(manifest, count)


def test_the_choice_among_many_images_looks_at_each_once() -> None:
    """The work grows with the images and with those shown, not with their product."""
    reads = Counter[str]()

    class Counted(Sample):
        def __getattribute__(self, name: str) -> Any:
            reads[name] += 1
            return super().__getattribute__(name)

    images = tuple(
        Counted(f"{n}", "train", Path(), 1, 1, "", (n % 7, 7 + n % 3)) for n in range(500)
    )
    assert len(sample_images(Manifest(images), 200)) == 200
    assert reads["tags"] < 3000


def products(run: Run) -> dict[str, list[Path]]:
    maps = {}
    for s in run.samples:
        label = np.where(run.truth[s.id] == 255, 0, run.truth[s.id]).astype(np.uint8)
        train = label.copy()
        train[:4] = 255
        maps[s.id] = {"label": label, "train": train}
    predicted = {image: {"single": m["label"], "multi": m["label"]} for image, m in maps.items()}
    return {
        "cams": run.cam_shards(),
        "masks": [run.write("masks", "masks", maps)],
        "predictions": [run.write("pred", "predictions", predicted)],
    }


def draw(run: Run, out: Path, config: Config | None = None, **shards: list[Path]) -> None:
    values = STAGES["pictures"].select(config or run.config)
    contact_sheet(run.manifest_dir, "train", out, **values, **shards)


@pytest.mark.slow
def test_sheet_has_a_column_per_product(make_run: Callable[..., Run], tmp_path: Path) -> None:
    run = make_run(3)
    given = products(run)
    sizes = {}
    for name, shards in {"all": given, "again": given, "cams": {"cams": given["cams"]}}.items():
        out = tmp_path / f"{name}.png"
        draw(run, out, **shards)
        with Image.open(out) as sheet:
            sizes[name] = sheet.size
    assert (tmp_path / "all.png").read_bytes() == (tmp_path / "again.png").read_bytes()
    # image, CAM, CAM + affinity, pseudo mask, train mask, prediction, truth
    assert sizes["all"][0] >= 7 * CELL > sizes["cams"][0] >= 4 * CELL
    assert sizes["all"][1] > len(run.samples) * CELL
    out = tmp_path / "refiner.png"
    draw(run, out, **given, refiner=given["predictions"])
    with Image.open(out) as sheet:
        assert sheet.size[0] >= sizes["all"][0] + CELL


def test_sheet_without_truth_or_with_some(make_run: Callable[..., Run], tmp_path: Path) -> None:
    run = make_run(4)
    out = tmp_path / "sheet.png"
    bare = from_mapping({"data": {"kind": "folder", "root": "photos"}})
    draw(run, out, bare)
    with Image.open(out) as sheet:
        width = sheet.width
    folder = run.folder / "data" / "SegmentationClass"
    (folder / "image1.png").unlink()
    some = from_mapping({"data": {"kind": "folder", "root": "photos", "masks": str(folder)}})
    draw(run, out, some, cams=run.cam_shards())
    with Image.open(out) as sheet:
        assert sheet.width >= width
    with pytest.raises(TruthError, match="image1"):
        draw(run, out)


def test_labels_are_painted_in_palette_colours() -> None:
    photo = np.full((40, 40, 3), 128, np.uint8)
    labels = np.zeros((40, 40), np.uint8)
    labels[5:20, 5:20] = 40
    labels[25:38, 5:35] = 255
    void = paint_labels(photo, labels, PALETTE)
    assert tuple(void[30, 15]) == (224, 224, 192)
    colour, pale = PALETTE[40].astype(float), void[0, 39].astype(float)
    np.testing.assert_allclose(void[12, 12], 0.7 * colour + 0.3 * pale, atol=2)
    assert (void[5:20, 20] == 255).all() or (void[5:19, 19] == 255).all()  # a white outline
    hatched = paint_labels(photo, labels, PALETTE, hatch_ignore=True)
    region = hatched[27:36, 8:32].reshape(-1, 3)
    assert len(np.unique(region, axis=0)) == 2  # stripes on grey
    np.testing.assert_array_equal(hatched[12, 12], void[12, 12])


def test_heat_grows_with_the_score_and_allows_no_class() -> None:
    photo = np.full((30, 30, 3), 128, np.uint8)
    ramp = np.tile(np.linspace(0, 0.45, 30, dtype=np.float32), (1, 30, 1))
    painted = paint_heat(photo, ramp, [3], PALETTE).sum(axis=2).astype(int)
    assert (np.diff(painted[15]) >= 0).all()
    assert painted[15, -1] > painted[15, 0]
    blank = paint_heat(photo, np.zeros((0, 30, 30), np.float32), [], PALETTE)
    assert len(np.unique(blank.reshape(-1, 3), axis=0)) == 1
    strong = np.zeros((1, 30, 30), np.float32)
    strong[0, 10:20, 10:20] = 0.9
    outlined = paint_heat(photo, strong, [39], PALETTE).reshape(-1, 3)
    assert (outlined == PALETTE[40]).all(axis=1).any()


def test_smoothed_equals_brute_force() -> None:
    values = np.random.default_rng(0).random(20)
    expected = [values[max(0, n - 4) : n + 1].mean() for n in range(20)]
    np.testing.assert_allclose(smoothed(values, 5), expected)


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_loss_curve(tmp_path: Path, suffix: str) -> None:
    log = tmp_path / "loss.csv"
    rows = [f"{n},{1 / n},{0.1 / n},50" for n in range(1, 40)]
    log.write_text("\n".join(["step,loss,lr,decode.acc", *rows]))
    paths = [tmp_path / f"{n}.{suffix}" for n in "ab"]
    for path in paths:
        loss_curve(log, path)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    log.write_text("step,loss\n1,nan\n")
    loss_curve(log, paths[0])  # one step, no learning rate, no finite value
    for text, message in (("a,b\n1,2\n", "columns step and loss"), ("step,loss\n", "no rows")):
        log.write_text(text)
        with pytest.raises(ArtifactError, match=message):
            loss_curve(log, paths[0])
    log.write_text("step,loss\n1,x\n")
    with pytest.raises(ArtifactError, match="no number"):
        loss_curve(log, paths[0])
    with pytest.raises(ArtifactError, match="no such log"):
        loss_curve(tmp_path / "none.csv", paths[0])


def test_a_class_chart_of_two_runs_has_the_rows_of_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[curves.Panel] = []
    monkeypatch.setattr(curves, "draw_bars", lambda panels, *_: drawn.extend(panels))
    paths = [tmp_path / "a.json", tmp_path / "b.json"]
    for path in paths:
        write_records(path, [make_record("masks", run=path.stem, crf=True)])
    class_chart(paths, tmp_path / "chart.png")
    assert list(drawn[0].series) == ["pseudo mask, a", "pseudo mask, b"]


def test_class_chart(tmp_path: Path) -> None:
    write_records(tmp_path / "r.json", records())
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    for path in paths:
        class_chart([tmp_path / "r.json"], path)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    write_records(tmp_path / "r.json", [])
    with pytest.raises(ArtifactError, match="no records to draw"):
        class_chart([tmp_path / "r.json"], paths[0])


def test_long_titles_keep_their_start_and_long_ids_their_end() -> None:
    def drawn(title: str, name: str) -> np.ndarray:
        return np.asarray(draw_sheet("t", [title], [Row((BLANK,), name, ())], [], ""))

    long = 60 * "x"
    expected = drawn(f"a{long}1", f"1{long}a")
    assert np.array_equal(drawn(f"a{long}2", f"2{long}a"), expected)
    assert not np.array_equal(drawn(f"b{long}1", f"1{long}a"), expected)
    assert not np.array_equal(drawn(f"a{long}1", f"1{long}b"), expected)
