"""Crops: photo, padding, labels and maps are cut alike."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from wsss.data.images.crop import Crop, draw_crop

SIZES = st.tuples(st.integers(1, 70), st.integers(1, 70))


@settings(max_examples=60, deadline=None)
@given(SIZES, st.integers(0, 10**6), st.sampled_from([(1.0, 1.0), (0.5, 2.0)]))
def test_photo_and_labels_agree(
    size: tuple[int, int], seed: int, scales: tuple[float, float]
) -> None:
    """Padding, labels and maps lie where the photo does."""
    crop = draw_crop(size, 32, scales, np.random.default_rng(seed))
    photo = np.full((*size, 3), 200, np.uint8)
    labels = np.full(size, 3, np.uint8)
    cut, inside = crop.photo(photo), crop.valid()
    assert (cut[inside] == 200).all()
    assert (cut[~inside] == 0).all()
    cut_labels = crop.labels(labels, outside=255)
    assert (cut_labels[inside] == 3).all()
    assert (cut_labels[~inside] == 255).all()
    maps = crop.maps(np.ones((2, 5, 4), np.float32), 8)
    centres = inside[2::4, 2::4]  # of cells of 4 pixels, the pixel right below their centre
    assert np.isin(maps, (0, 1)).all()
    assert (maps[0] == maps[1]).all()
    assert (maps[0][centres & inside[1::4, 1::4]] == 1).all()


def test_some_of_the_photo_is_always_shown() -> None:
    for seed in range(200):
        crop = draw_crop((40, 60), 32, (0.5, 2.0), np.random.default_rng(seed))
        rows, columns = crop.valid().any(1).sum(), crop.valid().any(0).sum()
        assert rows == min(32, crop.scaled[0])
        assert columns == min(32, crop.scaled[1])


def test_a_small_photo_may_be_padded_right_and_below_alone() -> None:
    for seed in range(50):
        crop = draw_crop((40, 20), 32, (0.2, 1.5), np.random.default_rng(seed), corner=True)
        rows, columns = (min(32, side) for side in crop.scaled)
        inside = np.zeros((32, 32), bool)
        inside[:rows, :columns] = True
        np.testing.assert_array_equal(crop.valid(), inside)
        assert crop.top >= 0
        assert crop.left >= 0
    places = {
        draw_crop((10, 10), 32, (1.0, 1.0), np.random.default_rng(seed)).top for seed in range(50)
    }
    assert len(places) > 5  # without `corner`


def test_scaling_without_smoothing_sees_four_pixels() -> None:
    photo = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    crop = Crop((16, 24), 0, 0, mirrored=False, side=32)
    rough = crop.photo(photo, smooth=False)[:16, :24].astype(float)
    # A quarter of the size: the centre of a pixel lies between the middle four of 4 x 4.
    four = np.stack([photo[i::4, j::4] for i in (1, 2) for j in (1, 2)]).mean(0)
    assert np.abs(rough - four).max() <= 1
    assert np.abs(crop.photo(photo)[:16, :24] - four).max() > 20


def test_mirroring_mirrors_everything() -> None:
    rng = np.random.default_rng(0)
    photo = rng.integers(1, 255, (24, 32, 3), np.uint8)
    labels = rng.integers(0, 9, (24, 32), np.uint8)
    maps = rng.random((2, 6, 8)).astype(np.float32)
    straight = Crop((24, 32), 0, 0, mirrored=False, side=32)
    mirrored = Crop((24, 32), 0, 0, mirrored=True, side=32)
    np.testing.assert_array_equal(mirrored.photo(photo), straight.photo(photo)[:, ::-1])
    np.testing.assert_array_equal(
        mirrored.labels(labels, outside=255), straight.labels(labels, outside=255)[:, ::-1]
    )
    np.testing.assert_allclose(mirrored.maps(maps, 8), straight.maps(maps, 8)[..., ::-1], atol=1e-6)


def test_a_window_of_whole_cells_gives_the_cells() -> None:
    maps = np.random.default_rng(1).random((1, 8, 8)).astype(np.float32)
    crop = Crop((64, 64), 16, 24, mirrored=False, side=32)
    np.testing.assert_allclose(crop.maps(maps, 4)[0], maps[0, 2:6, 3:7], atol=1e-6)


def test_labels_of_another_size_are_cut_by_share() -> None:
    labels = np.zeros((10, 10), np.uint8)
    labels[:, 5:] = 7
    crop = Crop((100, 100), 0, 34, mirrored=False, side=32)
    cut_labels = crop.labels(labels, outside=255)
    assert (cut_labels[:, :16] == 0).all()
    assert (cut_labels[:, 16:] == 7).all()


def test_the_draw_is_a_function_of_the_generator() -> None:
    draws = [draw_crop((50, 40), 32, (0.5, 2.0), np.random.default_rng(1)) for _ in range(2)]
    assert draws[0] == draws[1]


def test_scale_and_place_vary_over_their_ranges() -> None:
    crops = [draw_crop((100, 100), 32, (0.5, 2.0), np.random.default_rng(n)) for n in range(300)]
    heights = [crop.scaled[0] for crop in crops]
    assert min(heights) < 60
    assert max(heights) > 190
    assert 0.4 < np.mean([crop.mirrored for crop in crops]) < 0.6
    for places in ([crop.top for crop in crops], [crop.left for crop in crops]):
        assert 0 <= min(places) < 5
        assert max(places) > 100
