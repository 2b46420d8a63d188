"""Online pseudo labels: batches of unlike images, padding, the ignore band."""

import pytest
import torch

from wsss.labels.online import IgnoreBand, online_labels, score_stacks


def _batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    image_index, classes = torch.tensor([0, 0, 2]), torch.tensor([4, 1, 7])
    return torch.randn(3, 3, 32, 40), torch.rand(3, 4, 5), image_index, classes


def test_images_are_labelled_as_if_alone() -> None:
    images, maps, image_index, classes = _batch()
    together = online_labels(images, maps, image_index, classes, (32, 40))
    for k in range(3):
        mine = image_index == k
        alone = online_labels(
            images[k : k + 1],
            maps[mine],
            torch.zeros(int(mine.sum()), dtype=torch.long),
            classes[mine],
            (32, 40),
        )
        assert torch.equal(together[k], alone[0])
    assert set(together[0].unique().tolist()) <= {0, 5, 2}
    assert together[1].max() == 0  # no class
    assert set(together[2].unique().tolist()) <= {0, 8}


def test_batch_without_any_class() -> None:
    none = torch.zeros(0, dtype=torch.long)
    actual = online_labels(torch.randn(2, 3, 16, 16), torch.rand(0, 2, 2), none, none, (16, 16))
    assert actual.shape == (2, 16, 16)
    assert actual.max() == 0


def test_background_is_what_the_largest_map_leaves() -> None:
    maps = torch.tensor([[[0.2]], [[0.7]]])
    stacks = score_stacks(maps, torch.tensor([0, 0]), 1, (2, 2), power=2.0)
    torch.testing.assert_close(stacks[0, :, 0, 0], torch.tensor([0.09, 0.2, 0.7]))


def test_padding_and_the_ignore_band() -> None:
    images, maps, image_index, classes = _batch()
    valid = torch.ones(3, 32, 40, dtype=torch.bool)
    valid[:, :, 30:] = False
    plain = online_labels(images, maps, image_index, classes, (32, 40))
    actual = online_labels(
        images, maps, image_index, classes, (32, 40), valid=valid, ignore_band=IgnoreBand(0.4, 0.6)
    )
    assert (actual[:, :, 30:] == 255).all()
    inner = actual[:, :, :30]
    assert 0 < (inner == 255).float().mean() < 1
    assert torch.equal(inner[inner != 255], plain[:, :, :30][inner != 255])


def test_ignore_band_is_checked() -> None:
    with pytest.raises(ValueError, match="low < high"):
        IgnoreBand(0.6, 0.4)
