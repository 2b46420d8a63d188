"""The dense CRF of predictions on a GPU, where the network is: several images at once.

Worker processes (`wsss.labels.prediction_shards`) do the same for each image on a CPU.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor

from wsss.compute.device_memory import FittingBatches
from wsss.compute.packed_rows import to_device
from wsss.config.labels import CrfConfig
from wsss.labels.crf import appearance_image, check_deviations, check_probabilities, unary_energy
from wsss.labels.lattice_crf import batch_posterior
from wsss.labels.prediction import Prediction, crf_inputs, crf_labels

_AT_ONCE = 8
_BYTES_PER_PIXEL = 1500
"""About what an image's lattice and the rows of its labels take, with some tens of labels."""

Maps = dict[str, UInt8[np.ndarray, "height width"]]


def label_maps_on(
    device: str, predictions: Iterable[tuple[str, Prediction]], crf: CrfConfig
) -> Iterator[tuple[str, Maps]]:
    """Id and `wsss.labels.prediction.label_maps` of each prediction, in their order.

    Args:
        predictions: id and prediction.
        crf: settings, with backend torch.

    Raises:
        ValueError: NaN in the probabilities, or a deviation is too small for an image.
        DeviceMemoryError: one image does not fit into the memory of the GPU.
    """
    fitting = FittingBatches("set masks.crf.long_side, or masks.crf.backend to pydensecrf")
    target, waiting = torch.device(device), iter(predictions)
    while batch := list(itertools.islice(waiting, _AT_ONCE)):
        images, some = zip(*batch, strict=True)
        pixels = max(p.image.shape[0] * p.image.shape[1] * len(p.protocols) for p in some)
        maps = fitting.run(
            _Batch(some, crf, target), len(some), bytes_each=_BYTES_PER_PIXEL * pixels
        )
        yield from zip(images, maps, strict=True)


class _Batch:
    """The label maps of a part of some predictions."""

    def __init__(
        self, predictions: Sequence[Prediction], crf: CrfConfig, device: torch.device
    ) -> None:
        self._predictions, self._crf, self._device = predictions, crf, device

    def __call__(self, part: slice) -> list[Maps]:
        inputs = [crf_inputs(prediction, self._crf) for prediction in self._predictions[part]]
        names = [(index, name) for index, one in enumerate(inputs) for name in one.protocols]
        for index, name in names:
            check_probabilities(inputs[index].protocols[name])
        energies = [unary_energy(inputs[i].protocols[n], inputs[i].crf) for i, n in names]
        photos = [appearance_image(inputs[i].image, inputs[i].crf) for i, _ in names]
        refined = posteriors(
            [to_device(torch.from_numpy(energy), self._device) for energy in energies],
            photos,
            [inputs[index].crf for index, _ in names],
        )
        after = {where: maps.cpu().numpy() for where, maps in zip(names, refined, strict=True)}
        return [
            crf_labels(prediction, {name: after[index, name] for name in prediction.protocols})
            for index, prediction in enumerate(self._predictions[part])
        ]


def posteriors(
    energies: Sequence[Float[Tensor, "_ _ _"]],
    photos: Sequence[UInt8[np.ndarray, "_ _ 3"]],
    settings: Sequence[CrfConfig],
) -> list[Float32[Tensor, "_ _ _"]]:
    """The mean-field posterior of each image, on the device of the energies.

    Args:
        energies: [labels, h, w].
        photos: as the appearance kernel sees them.
        settings: of each image; those of equal settings run together.

    Raises:
        ValueError: a deviation is too small for an image of this size.
    """
    groups: dict[str, list[int]] = {}
    for index, (photo, crf) in enumerate(zip(photos, settings, strict=True)):
        check_deviations(photo.shape[0], photo.shape[1], crf)
        groups.setdefault(crf.model_dump_json(), []).append(index)
    results: dict[int, Tensor] = {}
    for indices in groups.values():
        device = energies[indices[0]].device
        images = [to_device(torch.from_numpy(photos[index]), device) for index in indices]
        refined = batch_posterior([energies[i] for i in indices], images, settings[indices[0]])
        results.update(zip(indices, refined, strict=True))
    return [results[index] for index in range(len(energies))]
