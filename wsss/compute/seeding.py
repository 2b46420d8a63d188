"""Random numbers as a function of (seed, position), never of earlier draws.

A run that was killed and resumed, or that uses another number of data workers, then draws the same
numbers as an uninterrupted one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

ORDER, AUGMENTATION, NETWORK = range(3)
"""What the numbers are for; streams of different purposes are independent."""


def seed_words(seed: int, purpose: int, *position: int) -> np.ndarray:
    """Four 32-bit words that seed a generator.

    Args:
        purpose: `ORDER`, `AUGMENTATION` or `NETWORK`.
        position: where the numbers are used, e.g. the training step.
    """
    return np.random.SeedSequence([seed, purpose, *position]).generate_state(4)


def seed_number(seed: int, purpose: int, *position: int) -> int:
    """The same as one integer below 2^63."""
    high, low = seed_words(seed, purpose, *position)[:2]
    return (int(high) << 32 | int(low)) >> 1


class EpochOrder:
    """An endless stream of positions over some items; every epoch is a new order of them.

    The item at a position is a function of (seed, position).
    """

    def __init__(self, seed: int, count: int) -> None:
        self._seed, self._count = seed, count
        self._epoch: tuple[int, np.ndarray] = (-1, np.empty(0, np.int64))

    def __getitem__(self, position: int) -> int:
        """The item at a position of the stream."""
        epoch, offset = divmod(position, self._count)
        if self._epoch[0] != epoch:
            generator = np.random.default_rng(seed_words(self._seed, ORDER, epoch))
            self._epoch = (epoch, generator.permutation(self._count))
        return int(self._epoch[1][offset])


@contextmanager
def numpy_seeded(seed: int, purpose: int, *position: int) -> Iterator[None]:
    """Seed numpy's global generator, from which mmsegmentation's transforms draw, for a while."""
    before = np.random.get_state()
    np.random.seed(seed_words(seed, purpose, *position))
    try:
        yield
    finally:
        np.random.set_state(before)
