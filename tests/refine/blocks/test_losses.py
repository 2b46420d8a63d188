"""The shared losses: against loops, and finite whatever the batch holds."""

import pytest
import torch
import torch.nn.functional as F

from wsss.refine.blocks.losses import affinity_labels, affinity_loss, balanced_cross_entropy, window


def test_balanced_cross_entropy_is_two_means() -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 4, 6, 6)
    labels = torch.randint(0, 4, (2, 6, 6))
    labels[0, :2] = 255
    each = F.cross_entropy(logits, labels, reduction="none", ignore_index=255)
    expected = 0.5 * each[labels == 0].mean() + 0.5 * each[(labels > 0) & (labels < 255)].mean()
    torch.testing.assert_close(balanced_cross_entropy(logits, labels), expected)


@pytest.mark.parametrize("label", [0, 2, 255])
def test_one_sided_batches_stay_finite(label: int) -> None:
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    loss = balanced_cross_entropy(logits, torch.full((1, 8, 8), label, dtype=torch.uint8))
    loss.backward()
    assert loss.isfinite()
    assert logits.grad.isfinite().all()
    assert (loss == 0) == (label == 255)


def test_window_is_a_square_around_each_cell() -> None:
    near = window((3, 5), 1)
    for a in range(15):
        for b in range(15):
            apart = max(abs(a // 5 - b // 5), abs(a % 5 - b % 5))
            assert near[a, b] == (apart <= 1)


def test_affinity_labels_and_loss() -> None:
    labels = torch.zeros(1, 8, 8, dtype=torch.long)
    labels[:, :, 4:] = 3
    labels[:, 4:, 4:] = 255
    near = window((2, 2), 1)
    pairs = affinity_labels(labels, (2, 2), near)
    assert pairs[0].tolist() == [
        [1, 0, 1, 255],
        [0, 1, 0, 255],
        [1, 0, 1, 255],
        [255, 255, 255, 255],
    ]
    affinity = torch.full((1, 4, 4), 0.25)
    # five equal pairs and four unequal ones; counts are one more
    expected = 0.5 * (5 * 0.75 / 6 + 4 * 0.25 / 5)
    assert affinity_loss(affinity, pairs).item() == pytest.approx(expected)
    nothing = torch.full((1, 4, 4), 255, dtype=torch.uint8)
    assert affinity_loss(affinity, nothing).item() == 0
