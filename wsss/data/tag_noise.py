"""Tags removed and added at random, to measure what a chain loses by wrong tags.

What happens to an image is a function of the seed, its id and the names of the classes: it depends
neither on other images nor on their order. A tag that a small share removes, a larger one removes,
too, and so with what is added. So points of a curve differ by what was removed between them alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence

from wsss.config.data import TagNoiseConfig

_BITS = 64


def noisy_tags(
    image: str,
    tags: Sequence[int],
    given: Collection[int],
    names: Sequence[str],
    noise: TagNoiseConfig,
) -> tuple[int, ...]:
    """The tags of an image after the noise.

    With ``keep_one`` the tag stays that the largest share removes last. An added class is neither
    a given tag nor one of ``tags``, each such class with the same probability; it comes last.

    Args:
        image: id.
        tags: 0-based classes to start from.
        given: the tags of the data set.
        noise: what is removed and added.
    """
    draws = {k: _uniform(noise.seed, image, "removed", names[k]) for k in tags}
    noisy = [k for k in tags if draws[k] >= noise.dropped]
    if tags and not noisy and noise.untagged == "keep_one":
        noisy = [max(tags, key=draws.__getitem__)]
    wrong = [k for k in range(len(names)) if k not in given and k not in tags]
    if wrong and _uniform(noise.seed, image, "added") < noise.added:
        noisy.append(min(wrong, key=lambda k: _uniform(noise.seed, image, "class", names[k])))
    return tuple(noisy)


def _uniform(seed: int, *words: str) -> float:
    """A number in [0, 1) that depends on nothing else."""
    digest = hashlib.sha256("\0".join([str(seed), *words]).encode()).digest()
    return int.from_bytes(digest[: _BITS // 8], "big") / 2**_BITS
