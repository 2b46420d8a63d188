"""Every scene agrees with its tags and mask and does not depend on other scenes."""

import hashlib

import numpy as np
import pytest

from wsss.data.datasets.words import DEMO_BACKGROUNDS, DEMO_NAMES
from wsss.demo.backgrounds import HABITATS, PLACES
from wsss.demo.occlusion import BORDER, MIN_PIXELS
from wsss.demo.scenes import Scene, render_scene


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [render_scene(3, "train", index) for index in range(60)]


def test_tags_are_the_classes_of_the_mask(scenes: list[Scene]) -> None:
    for scene in scenes:
        values = set(np.unique(scene.mask).tolist()) - {0, BORDER}
        assert {DEMO_NAMES[value - 1] for value in values} == set(scene.tags)
        for value in values:
            assert np.count_nonzero(scene.mask == value) >= MIN_PIXELS


def test_one_to_three_classes_in_class_order(scenes: list[Scene]) -> None:
    counts = {len(scene.tags) for scene in scenes}
    assert counts == {1, 2, 3}
    for scene in scenes:
        assert list(scene.tags) == [name for name in DEMO_NAMES if name in scene.tags]
    assert {name for scene in scenes for name in scene.tags} == set(DEMO_NAMES)


def test_sizes_vary_within_bounds(scenes: list[Scene]) -> None:
    sizes = {scene.image.shape for scene in scenes}
    assert len(sizes) > 5
    assert all(96 <= side <= 144 for size in sizes for side in size[:2])
    assert any(h > w for h, w, _ in sizes)
    assert any(h < w for h, w, _ in sizes)
    for scene in scenes:
        assert scene.image.dtype == scene.mask.dtype == np.uint8
        assert scene.image.shape == (*scene.mask.shape, 3)


def test_objects_never_touch_ground_without_a_thin_border(scenes: list[Scene]) -> None:
    for scene in scenes:
        mask = scene.mask
        assert 0 < np.count_nonzero(mask == BORDER) < 0.2 * mask.size
        for here, there in ((mask[1:], mask[:-1]), (mask[:, 1:], mask[:, :-1])):
            solid = (here != BORDER) & (there != BORDER)
            assert (here[solid] == there[solid]).all()


def test_objects_of_all_sizes(scenes: list[Scene]) -> None:
    shares = [
        np.count_nonzero(scene.mask == value) / scene.mask.size
        for scene in scenes
        for value in np.unique(scene.mask)
        if value not in (0, BORDER)
    ]
    assert min(shares) < 0.03
    assert max(shares) > 0.2


def test_boats_are_mostly_on_water(scenes: list[Scene]) -> None:
    places = [scene.background for scene in scenes if "boat" in scene.tags]
    assert places.count("water") >= 0.75 * len(places) > 0


def test_a_scene_repeats_and_streams_differ() -> None:
    def digest(seed: int, split: str, index: int) -> str:
        scene = render_scene(seed, split, index)
        return hashlib.sha256(scene.image.tobytes() + scene.mask.tobytes()).hexdigest()

    assert digest(0, "val", 5) == digest(0, "val", 5)
    others = {digest(*key) for key in ((0, "train", 5), (0, "pretrain", 5), (1, "val", 5))}
    assert len(others | {digest(0, "val", 5)}) == 4


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="unknown split 'test'"):
        render_scene(0, "test", 0)
    with pytest.raises(ValueError, match="negative"):
        render_scene(0, "val", -1)


def test_names_fit_together() -> None:
    assert set(DEMO_NAMES) == set(HABITATS)
    assert not set(DEMO_BACKGROUNDS) & set(DEMO_NAMES)
    for habitat in HABITATS.values():
        assert set(habitat) <= set(PLACES)
        assert sum(habitat.values()) == pytest.approx(1)
