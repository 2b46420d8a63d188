import json
import re
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.builders import clip_es_config
from wsss.artifacts.checksum import json_with_checksum
from wsss.artifacts.errors import ArtifactError
from wsss.config.errors import ConfigError
from wsss.config.load import from_mapping
from wsss.score.metrics.confusion import Confusion
from wsss.score.metrics.counting import BLOB_SIGMA, ProductError, centred_blob
from wsss.score.product import ProductName
from wsss.score.record import Record, read_records
from wsss.score.tables.rows import background_text, row_name

from .conftest import Run, save_mask


def reference(run: Run, maps: dict[str, np.ndarray], foreground: Callable) -> np.ndarray:
    """Upsample, cut and count, image by image, with OpenCV alone."""
    confusion = Confusion(4)
    for sample in run.samples:
        label = np.zeros((sample.height, sample.width), np.uint8)
        grids = maps[sample.id].astype(np.float32)
        if len(grids):
            size = (sample.width, sample.height)
            scores = np.stack([cv2.resize(g, size, interpolation=cv2.INTER_LINEAR) for g in grids])
            label = np.array(sample.tags, np.uint8)[scores.argmax(0)] + 1
            label = np.where(foreground(scores.max(0)), label, 0).astype(np.uint8)
        confusion.add(run.truth[sample.id], label)
    return confusion.matrix


@pytest.mark.parametrize("product", ["cam", "affinity"])
def test_cams_at_the_rule_and_the_best_value(
    run: Run, tmp_path: Path, product: ProductName
) -> None:
    out = tmp_path / "scores.json"
    fixed, best = run.score(product, run.cam_shards(), out)
    maps = {k: v if product == "cam" else v**2 for k, v in run.cams.items()}
    np.testing.assert_array_equal(fixed.confusion, reference(run, maps, lambda m: m > 1 - m))
    assert (fixed.background.rule, fixed.background.value) == ("power", 1.0)
    assert fixed.background.source == "config"
    assert best.background.source == "best on this truth"
    threshold = np.float32(best.background.value)
    np.testing.assert_array_equal(best.confusion, reference(run, maps, lambda m: m > threshold))
    assert best.miou >= fixed.miou
    assert read_records([out]) == [fixed, best]
    assert row_name(fixed) == {"cam": "CAM", "affinity": "CAM + affinity"}[product]
    assert (fixed.split, fixed.images, fixed.product) == ("train", 6, product)
    assert fixed.weights == {"clip": "abc"}
    assert list(fixed.iou) == ["background", "cat", "boat", "tree"]
    assert fixed.provenance.inputs["cams-0.h5"]
    assert not fixed.crf


def test_a_record_names_the_rule_and_the_pngs_of_its_truth(run: Run, tmp_path: Path) -> None:
    masks = tmp_path / "theirs"
    for sample in run.samples:
        save_mask(masks / f"{sample.path.stem}.png", run.truth[sample.id])
    data = {"kind": "coco", "coco_truth": "png", "masks": str(masks), "tags": "masks"}
    config = clip_es_config({"data": data, "compute": {"workers": 1}})
    record, _ = run.score("blob", [], tmp_path / "s.json", config=config)
    assert record.truth_rule == "png"
    assert record.truth == f"6 PNGs in {masks} (png: PNGs that were made elsewhere)"
    assert record.tags_from_masks
    digest = record.provenance.inputs["truth"]
    demo, _ = run.score("blob", [], tmp_path / "s.json")
    assert demo.truth_rule == ""
    assert not demo.tags_from_masks
    assert demo.confusion == record.confusion
    save_mask(masks / f"{run.samples[0].path.stem}.png", 0 * run.truth[run.samples[0].id])
    record, _ = run.score("blob", [], tmp_path / "s.json", config=config)
    assert record.provenance.inputs["truth"] != digest


def test_constant_rule_and_fixed_alone(make_run: Callable[..., Run], tmp_path: Path) -> None:
    run = make_run(
        masks={"background": {"rule": "constant", "value": 0.3}},
        score={"cam_thresholds": "fixed", "report_classes": ["cat", "tree"]},
    )
    out = tmp_path / "s.json"
    (record,) = run.score("cam", run.cam_shards(), out)
    threshold = np.float32(0.3)
    np.testing.assert_array_equal(
        record.confusion, reference(run, run.cams, lambda m: m > threshold)
    )
    assert record.report_mean == pytest.approx((record.iou["cat"] + record.iou["tree"]) / 2)


def test_best_follows_the_report_classes(make_run: Callable[..., Run], tmp_path: Path) -> None:
    run = make_run(score={"report_classes": ["boat"]})
    out = tmp_path / "s.json"
    _, best = run.score("cam", run.cam_shards(), out)
    assert best.background.criterion == "mean IoU of the report classes"
    matrices = [
        reference(run, run.cams, lambda m, t=np.float32(p / 100): m > t) for p in range(100)
    ]
    boat = [m[2, 2] / (m[2].sum() + m[:, 2].sum() - m[2, 2]) for m in matrices]
    assert best.iou["boat"] == pytest.approx(max(boat))
    wrong = run.config.model_copy(
        update={"score": run.config.score.model_copy(update={"report_classes": ["boot"]})}
    )
    with pytest.raises(ConfigError, match=r"'boot' is no label.*'boat'"):
        run.score("cam", run.cam_shards(), out, config=wrong)


@pytest.mark.slow
def test_processes_and_shards_are_irrelevant(
    make_run: Callable[..., Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(8)
    a, b, c = (tmp_path / name / "s.json" for name in "abc")
    serial = run.score("cam", run.cam_shards(), a)
    monkeypatch.setattr("wsss.score.inputs._IMAGES_PER_PART", 2)
    two_workers = run.config.compute.model_copy(update={"workers": 2})
    config = run.config.model_copy(update={"compute": two_workers})
    parallel = run.score("cam", run.cam_shards(), b, config=config)
    assert serial == parallel  # the sha256 of the counts of each image with them
    whole = run.write("whole", "cams", {s.id: {"cam": run.cams[s.id]} for s in run.samples})
    third = run.score("cam", [whole], c)
    assert [r.confusion for r in serial] == [r.confusion for r in third]


def test_refined_scores(run: Run, tmp_path: Path) -> None:
    shard = run.write("s", "scores", {s.id: {"score": run.cams[s.id]} for s in run.samples})
    records = run.score("refiner_scores", [shard], tmp_path / "o")
    assert {record.product for record in records} == {"refiner_scores"}
    with pytest.raises(ArtifactError, match="holds 'cams', expected 'scores'"):
        run.score("refiner_scores", run.cam_shards(), tmp_path / "o")


def test_scores_with_a_separate_background(make_run: Callable[..., Run], tmp_path: Path) -> None:
    run = make_run(refine={"method": "weclip"})
    halves = {
        image: {"score": cam, "background": np.full(cam.shape[1:], 0.3, np.float16)}
        for image, cam in run.cams.items()
    }
    shard = run.write("own", "scores", halves)
    fixed, best = run.score("refiner_scores", [shard], tmp_path / "o")
    limit = np.float32(np.float16(0.3))
    np.testing.assert_array_equal(fixed.confusion, reference(run, run.cams, lambda m: m > limit))
    assert row_name(fixed) == "WeCLIP scores"
    assert fixed.background.rule == "refiner"
    assert background_text(fixed.background) == "refiner"
    assert best.background.rule == "constant"


def test_predictions_of_a_refiner(make_run: Callable[..., Run], tmp_path: Path) -> None:
    run = make_run(refine={"method": "weclip"}, infer={"scales": [1.0, 0.5]})
    maps = {
        s.id: dict.fromkeys(
            ("single", "multi", "multi_crf"), np.where(run.truth[s.id] == 255, 0, run.truth[s.id])
        )
        for s in run.samples
    }
    shard = run.write("refiner", "predictions", maps)
    single, multi, smoothed = run.score("refiner_prediction", [shard], tmp_path / "r.json")
    assert (single.method, single.chain) == ("weclip", "grad_cam → affinity → weclip")
    assert (multi.scales, multi.protocol, smoothed.crf) == ((1.0, 0.5), "multi", True)
    assert row_name(smoothed) == "WeCLIP prediction, multi-scale + flip, CRF"
    assert single.miou == 1.0


def test_masks_and_their_ignore_band(run: Run, tmp_path: Path) -> None:
    arrays = {}
    pixels = ignored = 0
    for sample in run.samples:
        truth = run.truth[sample.id]
        label = np.where(truth == 255, 0, truth).astype(np.uint8)
        label[:5] = 0
        train = label.copy()
        train[:5] = 255
        arrays[sample.id] = {"label": label, "train": train}
        pixels, ignored = pixels + truth.size, ignored + 5 * truth.shape[1]
    shard = run.write("masks", "masks", arrays)
    (record,) = run.score("masks", [shard], tmp_path / "m.json")
    assert record.coverage == pytest.approx(1 - ignored / pixels)
    assert record.coverage_accuracy == 1.0
    assert record.pixel_accuracy < 1
    assert record.crf
    assert record.chain == "grad_cam → affinity → masks → CRF"
    seeds = run.write("seeds", "seeds", arrays)
    (seed,) = run.score("seeds", [seeds], tmp_path / "s.json")
    assert (row_name(seed), seed.crf, seed.chain) == ("seed", False, "grad_cam → affinity → seeds")
    assert (seed.miou, seed.coverage) == (record.miou, record.coverage)
    assert seed.background.value == pytest.approx(0.5)  # the mean of the two


def test_predictions_have_one_record_per_protocol(run: Run, tmp_path: Path) -> None:
    def labels(image: str, shift: int) -> np.ndarray:
        truth = run.truth[image]
        return np.roll(np.where(truth == 255, 0, truth), shift, axis=1).astype(np.uint8)

    names = ["single", "multi", "single_crf", "multi_crf"]
    arrays = {s.id: {n: labels(s.id, k) for k, n in enumerate(names)} for s in run.samples}
    shard = run.write("pred", "predictions", arrays)
    out = tmp_path / "p.json"
    records = run.score("segmenter", [shard], out)
    assert [(r.protocol, r.crf) for r in records] == [
        ("single", False), ("multi", False), ("single_crf", True), ("multi_crf", True),
    ]  # fmt: skip
    assert records[0].scales == (1.0,)
    assert records[1].scales == (0.75, 1.0, 1.25)
    assert records[0].miou == 1.0
    accuracy = [r.pixel_accuracy for r in records]
    assert accuracy == sorted(accuracy, reverse=True)
    assert len(set(accuracy)) == 4
    assert records[0].chain.endswith("→ segformer-b0")
    assert records[0].background is None
    assert read_records([out]) == records


def test_blob_ignores_the_picture(run: Run, tmp_path: Path) -> None:
    records = run.score("blob", [], tmp_path / "b.json")
    blob = centred_blob(21, 41)
    assert blob[10, 20] == blob.max() == 1.0
    np.testing.assert_array_equal(blob, blob[::-1, ::-1])
    distance = (np.arange(41) - 20) / 41
    np.testing.assert_allclose(blob[10], np.exp(-0.5 * (distance / BLOB_SIGMA) ** 2), rtol=1e-5)
    confusion = Confusion(4)
    for s in run.samples:
        label = np.zeros((s.height, s.width), np.uint8)
        if s.tags:
            label[centred_blob(s.height, s.width) > 0.5] = s.tags[0] + 1
        confusion.add(run.truth[s.id], label)
    np.testing.assert_array_equal(records[0].confusion, confusion.matrix)
    assert [r.background.source for r in records if r.background] == [
        "config", "best on this truth",
    ]  # fmt: skip


def test_shards_must_hold_exactly_the_split(run: Run, tmp_path: Path) -> None:
    shards = run.cam_shards()
    out = tmp_path / "o.json"
    with pytest.raises(ProductError, match=r"1 shards lack 3 images .'image1'"):
        run.score("cam", shards[:1], out)
    with pytest.raises(ProductError, match=r"holds 3 images .* earlier shard"):
        run.score("cam", [*shards, shards[1]], out)
    with pytest.raises(ArtifactError, match="no image of split 'val', only train"):
        run.score("cam", shards, out, split="val")
    grids = {"stranger": {"cam": np.zeros((1, 2, 2), np.float16)}}
    stranger = run.write("x", "cams", grids)
    with pytest.raises(ProductError, match=r"1 images .'stranger'. that the split 'train'"):
        run.score("cam", [*shards, stranger], out)
    assert not out.exists()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda cam: {"cam": cam}, "has no array 'cam_affinity', only ['cam']"),
        (lambda cam: {"cam_affinity": cam * np.nan}, "NaN or infinite"),
        (
            lambda cam: {"cam_affinity": np.concatenate([cam, cam[:1]])},
            "expected one map per class",
        ),
    ],
)
def test_bad_cams(run: Run, tmp_path: Path, damage: Callable, message: str) -> None:
    arrays = {s.id: {"cam_affinity": run.cams[s.id]} for s in run.samples}
    arrays["image2"] = damage(run.cams["image2"])
    shard = run.write("bad", "cams", arrays)
    with pytest.raises(ProductError, match=re.escape(message)) as caught:
        run.score("affinity", [shard], tmp_path / "o")
    assert "'image2'" in str(caught.value)


def test_prediction_of_another_size_or_with_255(run: Run, tmp_path: Path) -> None:
    arrays = {s.id: {"single": np.zeros((s.height, s.width), np.uint8)} for s in run.samples}
    arrays["image1"] = {"single": np.zeros((3, 5), np.uint8)}
    shard = run.write("pred", "predictions", arrays)
    with pytest.raises(ProductError, match=r"'image1' is 5 x 3 pixels, the truth is 32 x 24"):
        run.score("segmenter", [shard], tmp_path / "o")
    arrays["image1"] = {"single": np.full((24, 32), 255, np.uint8)}
    shard = run.write("pred", "predictions", arrays)
    with pytest.raises(ProductError, match=r"'image1': the prediction holds label 255"):
        run.score("segmenter", [shard], tmp_path / "o")


def test_records_round_trip_and_damage(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    record = run.score("blob", [], path)[0]
    assert Record.model_validate_json(record.model_dump_json()) == record
    path.write_text("[{]", encoding="utf-8")
    with pytest.raises(ArtifactError, match="holds no score records"):
        read_records([path])
    path.write_text('[{"product": 1}]', encoding="utf-8")
    with pytest.raises(ArtifactError, match="carries no digest"):
        read_records([path])
    path.write_text(json.dumps([json_with_checksum({"product": 1})]), encoding="utf-8")
    with pytest.raises(ArtifactError, match="holds no score records"):
        read_records([path])
    with pytest.raises(ArtifactError, match="no such records"):
        read_records([tmp_path / "nowhere.json"])
    assert from_mapping({}).score.cam_thresholds == "fixed+best"
