"""The masks stage: its two products, reuse, determinism, and what it refuses."""

import logging
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.masks.mask_run import NAMES, MaskRun
from wsss.artifacts.digest import digest_file
from wsss.artifacts.errors import ArtifactError
from wsss.artifacts.shard import Item, Shard
from wsss.artifacts.watch import is_listed
from wsss.compute.pool import WorkerError
from wsss.data.images.label_png import read_label_png
from wsss.data.images.read import read_image
from wsss.labels.pseudo import pseudo_label
from wsss.labels.upsample import upsample
from wsss.masks import make, stage, store


def items(shard: Path) -> dict[str, Item]:
    with Shard(shard, kind="masks") as opened:
        return {item.id: item for item in opened}


def pngs(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*.png"))}


@pytest.mark.parametrize("crf", [True, False])
def test_masks_are_those_of_the_labels_room(run: MaskRun, crf: bool) -> None:
    shard, _ = run.make(run.write_scores(), crf={"enabled": crf}, min_confidence=0.8)
    config = run.config(crf={"enabled": crf}, min_confidence=0.8).masks
    actual = items(shard)
    assert list(actual) == [sample.id for sample in run.samples]
    for sample in run.samples:
        item, photo = actual[sample.id], read_image(sample.path)
        scores = upsample(run.item(sample).arrays["score"], photo.shape[:2])
        label, confidence = pseudo_label(scores, sample.tags, photo, config)
        np.testing.assert_array_equal(item.arrays["label"], label)
        unsure = confidence < 0.8
        np.testing.assert_array_equal(item.arrays["train"] == 255, unsure)
        np.testing.assert_array_equal(item.arrays["train"][~unsure], label[~unsure])
        assert item.attrs["size"] == [sample.height, sample.width]
        assert item.attrs["classes"] == list(sample.tags)
        assert item.attrs["coverage"] == pytest.approx(1 - unsure.mean())
        assert set(np.unique(label)) <= {0, *(tag + 1 for tag in sample.tags)}
    shares = [item.attrs["coverage"] for item in actual.values()]
    assert 0 < np.mean(shares) < 1  # the ignore band is neither empty nor everything


@pytest.mark.parametrize("own", [True, False], ids=["refiner's background", "rule"])
def test_labels_with_a_small_share_of_the_scores_are_ignored(run: MaskRun, own: bool) -> None:
    some = []
    for item in map(run.item, run.samples):
        score = item.arrays["score"]
        background = np.full(score.shape[1:], 0.3, np.float16)
        arrays = {"score": score, **({"background": background} if own else {})}
        some.append(replace(item, arrays=arrays))
    everywhere, _ = run.make(run.write_scores("some", some), out="everywhere", min_confidence=0)
    shard, _ = run.make(run.write_scores("some", some), min_confidence=0, min_score=0.5)
    ignored = []
    for sample, item in zip(run.samples, some, strict=True):
        before, after = items(everywhere)[sample.id].arrays, items(shard)[sample.id].arrays
        np.testing.assert_array_equal(after["label"], before["label"])
        if not sample.tags:
            continue
        size = after["label"].shape
        score = upsample(item.arrays["score"], size)
        plane = np.full(size, 0.3, np.float16) if own else 1 - score.max(axis=0)
        stack = np.concatenate([plane[None], score])
        own_score = np.zeros(size)
        for value, plane in zip([0, *(tag + 1 for tag in sample.tags)], stack, strict=True):
            own_score[after["label"] == value] = plane[after["label"] == value]
        weak = own_score / stack.sum(axis=0) < 0.5
        np.testing.assert_array_equal(after["train"], np.where(weak, 255, before["train"]))
        ignored.append(weak.mean())
    assert 0 < np.mean(ignored) < 1


def test_the_refiner_s_background_is_used(run: MaskRun) -> None:
    sure, none = (
        [
            replace(item, arrays=item.arrays | {"background": np.full((5, 6), value, np.float16)})
            for item in map(run.item, run.samples)
        ]
        for value in (1.0, 0.0)
    )
    labels = {}
    for name, items in (("sure", sure), ("none", none)):
        out, _ = run.make(run.write_scores(name, items), out=name, crf={"enabled": False})
        with Shard(out) as shard:
            labels[name] = {item.id: item.arrays["label"] for item in shard}
    for sample in run.samples:
        assert (labels["sure"][sample.id] == 0).mean() > 0.9
        assert not sample.tags or (labels["none"][sample.id] != 0).all()


def test_an_image_without_tags_is_background_and_teaches_nothing(run: MaskRun) -> None:
    shard, png = run.make(run.write_scores())
    item = items(shard)["untagged"]
    assert not item.arrays["label"].any()
    assert (item.arrays["train"] == 255).all()
    assert item.attrs["coverage"] == 0
    assert not read_label_png(png / "label" / "untagged.png").any()


def test_pngs_hold_the_same_labels_and_nothing_else_is_there(run: MaskRun) -> None:
    shard, png = run.make(run.write_scores())
    for image, item in items(shard).items():
        for product in ("label", "train"):
            read = read_label_png(png / product / f"{image}.png")
            np.testing.assert_array_equal(read, item.arrays[product])
    assert len(pngs(png)) == 2 * len(run.samples)
    assert {entry.name for entry in png.iterdir()} == {"label", "train"}
    assert is_listed(png)


def test_content_ignores_workers_and_shards(run: MaskRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "_PIXELS_WORTH_A_PROCESS", 1)  # start processes for tiny images, too
    scores = run.write_scores()
    serial, serial_png = run.make(scores, out="one", workers=1)
    parallel, parallel_png = run.make(scores, out="two", workers=2)
    with Shard(serial) as first, Shard(parallel) as second:
        assert first.content == second.content
    assert pngs(serial_png) == pngs(parallel_png)
    whole = items(serial)
    for part in (0, 1):
        some = [run.item(sample) for sample in run.samples[part::2]]
        shard, _ = run.make(run.write_scores(f"part{part}", some), out=f"part{part}")
        for image, item in items(shard).items():
            assert item.attrs == whole[image].attrs
            assert item.key == whole[image].key
            for product in ("label", "train"):
                np.testing.assert_array_equal(item.arrays[product], whole[image].arrays[product])


def test_unchanged_items_are_reused(
    run: MaskRun, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    shard, png = run.make(run.write_scores())
    before, files = items(shard), pngs(png)
    shard.unlink()  # as the workflow engine does before a rerun
    new = [run.item(sample) for sample in run.samples]
    new[1] = replace(new[1], key="made anew")
    tasks = []
    monkeypatch.setattr(
        stage, "make_mask", lambda t, **k: tasks.append(t) or make.make_mask(t, **k)
    )
    run.make(run.write_scores("again", new))
    assert [task.classes for task in tasks] == [run.samples[1].tags]
    assert pngs(png) == files
    after = items(shard)
    assert {image for image in after if after[image].key != before[image].key} == {"with space"}
    assert "6 images: 0 reused, 6 computed" in caplog.text
    assert "6 images: 5 reused, 1 computed" in caplog.text


@pytest.mark.parametrize(
    "options",
    [
        {"min_confidence": 0.5},
        {"min_score": 0.5},
        {"crf": {"iterations": 3}},
        {"background": {"value": 2.0}},
    ],
    ids=str,
)
def test_other_settings_are_recomputed(
    run: MaskRun, caplog: pytest.LogCaptureFixture, options: dict[str, object]
) -> None:
    caplog.set_level(logging.INFO)
    scores = run.write_scores()
    run.make(scores)
    run.make(scores, **options)
    assert "6 images: 0 reused, 6 computed" in caplog.messages[-1]


def test_other_photo_or_tags_are_recomputed(run: MaskRun, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    scores = run.write_scores()
    run.make(scores)
    photo = run.samples[0].path
    Image.fromarray(np.asarray(Image.open(photo))[::-1]).save(photo)
    run.samples[0] = replace(run.samples[0], digest=digest_file(photo))
    run.samples[1] = replace(run.samples[1], tags=(1, 3))
    run.write_manifest()
    run.make(scores)
    assert "6 images: 4 reused, 2 computed" in caplog.messages[-1]


def test_an_older_folder_is_replaced(run: MaskRun) -> None:
    scores = run.write_scores()
    _, png = run.make(scores)
    (png / "label" / "stale.png").write_bytes(b"")
    run.make(scores)
    assert len(pngs(png)) == 2 * len(run.samples)


def test_a_failed_run_leaves_nothing(run: MaskRun) -> None:
    run.samples[3].path.unlink()
    with pytest.raises(WorkerError, match=r"'sub/folder/deep image': .*3\.png: missing file"):
        run.make(run.write_scores())
    assert [entry.name for entry in (run.folder / "out").iterdir()] == []


def _killed(task: make.MaskTask, **_: object) -> make.PseudoMask:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def test_a_killed_worker_is_a_clear_error(run: MaskRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "_PIXELS_WORTH_A_PROCESS", 1)
    monkeypatch.setattr(stage, "make_mask", _killed)
    with pytest.raises(WorkerError, match=r"'plain'.*compute\.workers"):
        run.make(run.write_scores(), workers=2)
    assert [entry.name for entry in (run.folder / "out").iterdir()] == []


def test_a_photo_that_changed_since_ingest_is_refused(run: MaskRun) -> None:
    run.samples[0].path.write_bytes(run.samples[1].path.read_bytes())
    with pytest.raises(WorkerError, match=r"'plain': .*has changed since ingest; run ingest again"):
        run.make(run.write_scores())


def test_without_crf_no_photo_is_opened(run: MaskRun) -> None:
    for sample in run.samples:
        sample.path.unlink()
    run.make(run.write_scores(), crf={"enabled": False})


def test_the_split_decides_which_photo_an_id_means(run: MaskRun) -> None:
    other = replace(run.samples[1], id=run.samples[0].id, split="val", tags=run.samples[0].tags)
    run.samples.append(other)
    run.write_manifest()
    shard, _ = run.make(run.write_scores("val", [run.item(other)]))
    assert items(shard)["plain"].arrays["label"].shape == (other.height, other.width)
    silent = run.item(other)
    del silent.attrs["split"]  # type: ignore[attr-defined]
    with pytest.raises(ArtifactError, match="2 photos, one per split"):
        run.make(run.write_scores("silent", [silent]))


def test_scores_that_do_not_fit_are_refused(run: MaskRun) -> None:
    good = run.item(run.samples[0])
    bad = {
        "not in the manifest": replace(good, id="elsewhere"),
        "manifest says": replace(good, attrs={**good.attrs, "size": [3, 4]}),
        "class list ends at 11": replace(good, attrs={**good.attrs, "classes": [len(NAMES)]}),
        "shape": replace(good, attrs={**good.attrs, "classes": [0, 1]}),
        "shape None": replace(good, arrays={"cam": good.arrays["score"]}),
        "from nan to nan": replace(good, arrays={"score": good.arrays["score"] * np.nan}),
        "expected 0 … 1": replace(good, arrays={"score": good.arrays["score"] + 1}),
        "expected 0 … 1; rerun": replace(
            good, arrays=good.arrays | {"background": np.full((5, 6), 2, np.float16)}
        ),
        r"background of \(4, 6\)": replace(
            good, arrays=good.arrays | {"background": np.zeros((4, 6), np.float16)}
        ),
    }
    for message, item in bad.items():
        with pytest.raises(ArtifactError, match=message):
            run.make(run.write_scores("bad", [item]))
    with pytest.raises(ArtifactError, match="holds 'labels', expected 'scores'"):
        run.make(run.write_scores("labels", [good], kind="labels"))


def test_without_a_refiner_masks_come_from_cams(run: MaskRun) -> None:
    """Those after the affinity where the shard has them; the same masks as from equal scores."""
    scores = [run.item(sample) for sample in run.samples]
    expected = items(run.make(run.write_scores("scores", scores))[0])
    for first in ("cam", "cam_affinity"):
        cams = [
            replace(item, arrays={"cam": 0 * item.arrays["score"], first: item.arrays["score"]})
            for item in scores
        ]
        shard, _ = run.make(run.write_scores("cams", cams, kind="cams"), out=first)
        for image, item in items(shard).items():
            np.testing.assert_array_equal(item.arrays["label"], expected[image].arrays["label"])


@pytest.mark.parametrize("image", ["../outside", "/absolute", "sub/../../outside"])
def test_ids_cannot_leave_the_folder(run: MaskRun, image: str) -> None:
    run.samples[0] = replace(run.samples[0], id=image)
    run.write_manifest()
    with pytest.raises(ArtifactError, match="no file name"):
        run.make(run.write_scores())


def test_an_empty_shard(run: MaskRun) -> None:
    shard, png = run.make(run.write_scores("empty", []))
    assert items(shard) == {}
    assert {entry.name for entry in png.iterdir()} == {"label", "train"}


def test_weights_of_the_scores_are_passed_on(run: MaskRun) -> None:
    shard, _ = run.make(run.write_scores())
    with Shard(shard) as opened:
        assert opened.provenance.weights == {"clip": "abc"}
        assert set(opened.provenance.inputs) == {"scores", "manifest", "class_list"}


@pytest.mark.parametrize(
    ("par", "crf", "expected"),
    [
        (False, {"enabled": False}, 1),
        (True, {"enabled": False}, 8),
        (False, {"enabled": True, "backend": "pydensecrf"}, 8),
        (True, {"enabled": True, "backend": "torch"}, 8),
    ],
)
def test_what_takes_long_is_shared_out(
    run: MaskRun, par: bool, crf: dict[str, object], expected: int
) -> None:
    config = run.config(crf=crf, par=par).masks
    sample = replace(run.samples[0], height=375, width=500, tags=(0, 1))
    assert store._process_count(config.crf, config.par, 8, [sample] * 1000) == expected
    assert store._process_count(config.crf, config.par, 8, [sample]) == 1
