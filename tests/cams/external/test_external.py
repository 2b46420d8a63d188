"""External seeds: the layouts, the restricted reader, one report of all mistakes."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.builders import clip_es_config
from wsss.artifacts.digest import digest_file
from wsss.cams.external.pickle_reader import SeedError
from wsss.cams.external.source import ExternalSource
from wsss.clip.input import EncoderInput
from wsss.data.images.label_png import save_label_png
from wsss.data.manifest import Sample


def _sample(name: str, tags: tuple[int, ...] = (3, 1), size: tuple[int, int] = (20, 30)) -> Sample:
    return Sample(name, "train", Path(f"{name}.jpg"), size[1], size[0], "digest", tags)


def _source(folder: Path, layout: str = "npy", stride: int = 5) -> ExternalSource:
    external = {"path": str(folder), "layout": layout, "stride": stride}
    return ExternalSource(
        clip_es_config({"cams": {"source": "external", "external": external}}).cams
    )


def _maps() -> dict[int, np.ndarray]:
    random = np.random.default_rng(0)
    return {
        3: random.random((20, 30), dtype=np.float32),
        1: random.random((20, 30), dtype=np.float32),
    }


def test_seeds_are_propagated_along_the_encoder_s_attention(tmp_path: Path) -> None:
    size = (72, 96)
    pixels = np.random.default_rng(1).integers(0, 255, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    seed = np.zeros(size, np.float32)
    seed[24:48, 32:64] = 0.8
    seed[24:32, 32:40] = 0.0
    np.save(tmp_path / "a.npy", {1: seed}, allow_pickle=True)
    external = {"path": str(tmp_path), "layout": "npy", "stride": 4, "affinity": True}
    config = clip_es_config({"cams": {"source": "external", "external": external}})
    source = ExternalSource(config.cams, EncoderInput(config.clip, device="cpu"))
    photo = tmp_path / "a.png"
    sample = Sample("a", "train", photo, size[1], size[0], digest_file(photo), (3, 1))
    (actual,) = source.maps([sample])
    assert actual.cam.shape == (2, 18, 24)
    assert actual.cam_affinity.shape == (2, 9, 12)  # the encoder's patches of 8
    refined = actual.cam_affinity.astype(np.float32)
    assert refined[0].max() == 0  # no seed
    assert refined[1].max() == pytest.approx(1, abs=1e-3)
    assert refined[1, 3, 4] > 0  # filled from the rest of the box
    assert source.weights["clip"]


def test_surplus_and_missing_classes_are_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    np.save(tmp_path / "a.npy", {1: _maps()[1], 7: _maps()[3]}, allow_pickle=True)
    list(_source(tmp_path).maps([_sample("a")]))
    assert "1 of 1 files lack a CAM for a tag" in caplog.text
    assert "a: class 3" in caplog.text
    assert "hold a class that is no tag" in caplog.text
    assert "a: class 7" in caplog.text


@pytest.mark.parametrize("layout", ["by class", "clip-es"])
def test_dictionaries_are_averaged_in_the_order_of_the_tags(tmp_path: Path, layout: str) -> None:
    maps = _maps()
    content: dict[object, object] = dict(maps)
    if layout == "clip-es":
        stack = np.stack([maps[1], maps[3]]).astype(np.float16)
        content = {"keys": np.array([1, 3]), "attn_highres": stack}
    np.save(tmp_path / "a.npy", content, allow_pickle=True)
    (actual,) = _source(tmp_path).maps([_sample("a")])
    for row, tag in enumerate((3, 1)):
        expected = maps[tag].reshape(4, 5, 6, 5).mean((1, 3))
        np.testing.assert_allclose(actual.cam[row], expected, atol=1e-3)
    assert actual.cam.dtype == np.float16
    assert actual.cam_affinity is None


def test_tag_without_a_seed_is_empty_and_other_classes_are_ignored(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", {1: _maps()[1], 7: _maps()[3]}, allow_pickle=True)
    (actual,) = _source(tmp_path).maps([_sample("a")])
    assert actual.cam.shape == (2, 4, 6)
    assert actual.cam[0].max() == 0
    assert actual.cam[1].max() > 0


def test_hard_seeds_count_only_labelled_pixels(tmp_path: Path) -> None:
    labels = np.zeros((20, 30), np.uint8)
    labels[:5, :5] = 4  # class 3 in the whole first cell
    labels[5:10, :5] = 255
    labels[5, 0] = 2  # class 1 in the only labelled pixel of the second cell
    save_label_png(tmp_path / "a.png", labels)
    (actual,) = _source(tmp_path, "png").maps([_sample("a")])
    assert actual.cam[0, 0, 0] == 1
    assert actual.cam[1, 1, 0] == pytest.approx(1, abs=1e-3)
    assert actual.cam[:, 2:].max() == 0


def test_everything_that_is_wrong_is_reported_together(tmp_path: Path) -> None:
    good = _maps()
    np.save(tmp_path / "good.npy", good, allow_pickle=True)
    np.save(tmp_path / "small.npy", {3: good[3][:5]}, allow_pickle=True)
    np.save(tmp_path / "wild.npy", {3: good[3] * 9}, allow_pickle=True)
    (tmp_path / "cut.npy").write_bytes((tmp_path / "good.npy").read_bytes()[:400])
    samples = [_sample(name) for name in ("good", "small", "missing", "wild", "cut")]
    with pytest.raises(SeedError, match="4 of 5 files") as caught:
        list(_source(tmp_path).maps(samples))
    for part in (
        "small.npy: is of size (5, 30)",
        "missing.npy: no such file",
        "wild.npy",
        "cut.npy",
    ):
        assert part in str(caught.value)


def test_many_missing_files_hide_no_other_error(tmp_path: Path) -> None:
    np.save(tmp_path / "z.npy", _maps(), allow_pickle=True)
    samples = [*(_sample(f"{number}") for number in range(20)), _sample("z", size=(9, 9))]
    with pytest.raises(SeedError) as caught:
        list(_source(tmp_path).maps(samples))
    for part in ("21 of 21", "0.npy, 1.npy", "and 12 more: no such file", "its image is (9, 9)"):
        assert part in str(caught.value)


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(SeedError, match="nowhere: no such folder"):
        _source(tmp_path / "nowhere")


def test_tensors_as_keys_are_read(tmp_path: Path) -> None:
    """IRN stores its class ids as a tensor."""
    torch = pytest.importorskip("torch")
    maps = _maps()
    content = {
        "keys": torch.tensor([3, 1]),
        "cam": torch.zeros(2, 5, 6),
        "high_res": np.stack([maps[3], maps[1]]),
    }
    np.save(tmp_path / "a.npy", content, allow_pickle=True)
    (actual,) = _source(tmp_path).maps([_sample("a")])
    np.save(tmp_path / "b.npy", maps, allow_pickle=True)
    (plain,) = _source(tmp_path).maps([_sample("b")])
    np.testing.assert_array_equal(actual.cam, plain.cam)


def test_dictionaries_that_count_from_one(tmp_path: Path) -> None:
    maps = _maps()
    shifted = {0: np.ones((20, 30), np.float32)} | {k + 1: v for k, v in maps.items()}
    np.save(tmp_path / "a.npy", shifted, allow_pickle=True)
    np.save(tmp_path / "b.npy", maps, allow_pickle=True)
    external = {"path": str(tmp_path), "stride": 5, "first_class": 1}
    config = clip_es_config({"cams": {"source": "external", "external": external}})
    (actual,) = ExternalSource(config.cams).maps([_sample("a")])
    (plain,) = _source(tmp_path).maps([_sample("b")])
    np.testing.assert_array_equal(actual.cam, plain.cam)


@pytest.mark.parametrize(("first", "used"), [(1, 0), (0, 1)])
def test_classes_that_count_from_elsewhere(tmp_path: Path, first: int, used: int) -> None:
    """Tags that follow each other leave an image some maps, though of the wrong class."""
    tags = {"a": (3, 4), "b": (6,), "c": ()}
    for name, classes in tags.items():
        content = {tag + first: np.ones((20, 30), np.float32) for tag in classes}
        np.save(tmp_path / f"{name}.npy", content, allow_pickle=True)
    external = {"path": str(tmp_path), "stride": 5, "first_class": used}
    config = clip_es_config({"cams": {"source": "external", "external": external}})
    samples = [_sample(name, classes) for name, classes in tags.items()]
    with pytest.raises(SeedError, match=f"classes from {first}: .* set .*first_class: {first}"):
        list(ExternalSource(config.cams).maps(samples))


def test_classes_of_another_list(tmp_path: Path) -> None:
    for name in ("a", "b"):
        np.save(tmp_path / f"{name}.npy", {9: _maps()[1]}, allow_pickle=True)
    with pytest.raises(SeedError, match="none of 2 files has a CAM for a tag of its image"):
        list(_source(tmp_path).maps([_sample("a"), _sample("b")]))


def test_seeds_of_other_images_are_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a", "left over"):
        np.save(tmp_path / f"{name}.npy", _maps(), allow_pickle=True)
    external = {"path": str(tmp_path), "stride": 5}
    config = clip_es_config({"cams": {"source": "external", "external": external}})
    source = ExternalSource(config.cams, ids={"a", "b", "c"})
    list(source.maps([_sample("a")]))
    assert "1 file of no image of the run:\n  left over" in caplog.text
    with pytest.raises(SeedError) as raised:
        list(source.maps([_sample("a", size=(9, 9)), _sample("b")]))
    for part in ("2 of 2 files", "its image is (9, 9)", "b.npy: no such file", "left over"):
        assert part in str(raised.value)


def test_the_check_keeps_no_maps_in_memory(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", _maps(), allow_pickle=True)
    _, checked = _source(tmp_path)._check(_sample("a"))
    assert not isinstance(checked, Exception)
    assert checked.maps.base is None
    assert checked.maps.nbytes == 0
