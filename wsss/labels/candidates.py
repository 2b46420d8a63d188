"""From class probabilities on any device to labels and what enters the CRF.

A GPU keeps the probabilities: labels as bytes, and the planes that enter the CRF in half precision,
come down, those of all images together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from wsss.compute.packed_rows import to_device
from wsss.config.labels import CrfLabels
from wsss.labels.prediction import Candidates, candidates, crf_ids


def batch_candidates(
    protocols: Mapping[str, Float[Tensor, "batch labels height width"]], which: CrfLabels | None
) -> list[dict[str, Candidates]]:
    """The prediction of each protocol for each image.

    Args:
        protocols: probabilities of all labels, by the protocol's name.
        which: labels that enter the CRF; None: no CRF follows, and no plane is kept.
    """
    maps = [probs for batch in protocols.values() for probs in batch.unbind()]
    if maps and maps[0].is_cuda:
        results = _from_gpu(maps, which)
    else:
        results = [candidates(probs.numpy(), which) for probs in maps]
    images = len(results) // len(protocols)
    # One list per protocol -> one dictionary per image
    return [dict(zip(protocols, results[image::images], strict=True)) for image in range(images)]


def _from_gpu(
    maps: Sequence[Float[Tensor, "labels height width"]], which: CrfLabels | None
) -> list[Candidates]:
    """Three transfers, however many maps there are."""
    labels = torch.stack([probs.argmax(0).to(torch.uint8) for probs in maps]).cpu().numpy()
    if which is None:
        nothing = np.zeros((0, *labels.shape[1:]), np.float32)
        return [Candidates(likely, (), nothing) for likely in labels]
    peaks = torch.stack([probs.amax((1, 2)) for probs in maps]).cpu().numpy()
    ids = [crf_ids(peak, likely, which) for peak, likely in zip(peaks, labels, strict=True)]
    planes = [
        probs[to_device(torch.tensor(chosen), probs.device)].half()
        for probs, chosen in zip(maps, ids, strict=True)
    ]
    parts = torch.cat(planes).cpu().split([len(chosen) for chosen in ids])
    return [
        Candidates(likely, chosen, part.float().numpy())
        for likely, chosen, part in zip(labels, ids, parts, strict=True)
    ]
