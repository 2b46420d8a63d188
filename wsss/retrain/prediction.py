"""From a checkpoint and photos to what each protocol predicts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from wsss.artifacts.checkpoint import load_checkpoint
from wsss.artifacts.digest import digest_json
from wsss.artifacts.errors import ArtifactError
from wsss.artifacts.provenance import Provenance
from wsss.config.model import Config
from wsss.data.datasets.classes import ClassList
from wsss.data.images.read import read_image
from wsss.data.manifest import Sample
from wsss.labels.prediction import Prediction, candidates
from wsss.retrain.architecture import build_model, model_config
from wsss.retrain.inference import Segmenter


def predictions(
    config: Config, segmenter: Segmenter, samples: Sequence[Sample], *, batch: int
) -> Iterator[tuple[str, Prediction]]:
    """Id and prediction of each sample, in an order of equal sizes."""
    multi = tuple(config.predict.scales)
    for group in _equal_sizes(samples, batch):
        photos = [read_image(s.path, max_pixels=config.data.max_pixels) for s in group]
        stacked = np.stack(photos)
        found = {
            "single": segmenter.probabilities(stacked).cpu().numpy(),
            "multi": segmenter.probabilities(stacked, scales=multi, flip=True).cpu().numpy(),
        }
        for number, (sample, photo) in enumerate(zip(group, photos, strict=True)):
            kept = {name: candidates(values[number]) for name, values in found.items()}
            yield sample.id, Prediction(photo, kept)


def batch_size(config: Config, device: torch.device) -> int:
    """Images a batch.

    Rounding differs with the batch size: on the CPU, where batches gain little, images go one by
    one, so that the content does not depend on how the work was cut.
    """
    return 1 if device.type == "cpu" else config.compute.batch


def load_segmenter(
    config: Config, classes: ClassList, checkpoint: Path, device: torch.device
) -> Segmenter:
    """Build the configured network with the weights of a checkpoint.

    Raises:
        ArtifactError: the checkpoint is of another architecture or class list.
        ValueError: ``predict.window`` does not suit the network.
    """
    tensors, made_of = load_checkpoint(checkpoint)
    _check_origin(checkpoint, made_of, config, classes)
    model = build_model(
        model_config(config.retrain.model, labels=classes.label_count, crop=config.retrain.crop)
    )
    model.load_state_dict(tensors)
    asked = config.predict
    return Segmenter(model, device, average=asked.average, window=asked.window, stride=asked.stride)


def _check_origin(path: Path, made_of: Provenance, config: Config, classes: ClassList) -> None:
    found = made_of.config.get("retrain", {}).get("model")
    if found != config.retrain.model:
        raise ArtifactError(
            f"{path}: holds {found!r}, but retrain.model is {config.retrain.model!r}; "
            "train again or correct the configuration"
        )
    if made_of.inputs.get("classes") != digest_json(classes.names):
        raise ArtifactError(
            f"{path}: was trained for another class list than that of this manifest "
            f"({classes.name}: {len(classes.names)} classes); train again"
        )


def _equal_sizes(samples: Sequence[Sample], batch: int) -> Iterator[list[Sample]]:
    """Groups of at most ``batch`` images of one size."""
    by_size: dict[tuple[int, int], list[Sample]] = {}
    for sample in samples:
        by_size.setdefault((sample.height, sample.width), []).append(sample)
    for group in by_size.values():
        yield from (group[start : start + batch] for start in range(0, len(group), batch))
