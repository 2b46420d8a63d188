"""The refinement module: the paper's distance uses the learned affinity, the released one not."""

import pytest
import torch

from wsss.refine.blocks.refinement import block_distances, select_near, trusted_affinity


def test_distances_equal_sums_over_pairs() -> None:
    torch.manual_seed(0)
    affinity, attention = torch.rand(2, 5, 5), torch.rand(2, 3, 5, 5)
    gap = affinity[:, None] - attention
    torch.testing.assert_close(block_distances(affinity, attention), gap.abs().sum((2, 3)))
    torch.testing.assert_close(block_distances(affinity, attention, "signed"), gap.sum((2, 3)))


def test_only_the_absolute_distance_listens_to_the_affinity() -> None:
    torch.manual_seed(1)
    attention = torch.rand(1, 4, 6, 6)
    near_first = attention[:, 0]
    near_last = attention[:, 3]
    selected = {
        (name, distance): select_near(block_distances(affinity, attention, distance))
        for name, affinity in (("first", near_first), ("last", near_last))
        for distance in ("absolute", "signed")
    }
    assert selected["first", "absolute"][0, 0]
    assert selected["last", "absolute"][0, 3]
    assert not torch.equal(selected["first", "absolute"], selected["last", "absolute"])
    assert torch.equal(selected["first", "signed"], selected["last", "signed"])


def test_one_block_is_always_kept() -> None:
    assert select_near(torch.ones(2, 3)).all()
    assert select_near(torch.rand(20, 6)).any(1).all()


@pytest.mark.parametrize("blocks", [3, 6, 10, 12])
def test_equal_distances_select_all_blocks(blocks: int) -> None:
    """Their mean in float32 may be rounded to less than they are."""
    distances = (1000 * torch.rand(1000, 1)).expand(-1, blocks)
    assert (distances.mean(1) < distances[:, 0]).any()
    assert select_near(distances).all()


def test_trusted_affinity_is_a_weighed_mean_and_takes_no_gradient() -> None:
    affinity = torch.rand(1, 4, 4, requires_grad=True)
    attention = torch.rand(1, 3, 4, 4)
    selected = torch.tensor([[True, False, True]])
    trusted = trusted_affinity(affinity, attention, selected)
    expected = (attention[:, 0] + attention[:, 2]) / 2 * affinity
    torch.testing.assert_close(trusted, expected.detach(), rtol=1e-5, atol=1e-6)
    assert not trusted.requires_grad
