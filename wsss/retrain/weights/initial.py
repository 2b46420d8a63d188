"""Start a backbone from a checkpoint, whoever named its tensors, safely and completely."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from wsss._compat.mmengine_checkpoints import load_mmengine_checkpoint
from wsss.artifacts.errors import ArtifactError
from wsss.config.paths import expand_path
from wsss.errors import raise_unless_about
from wsss.retrain.networks.deit import DeiT
from wsss.retrain.weights.mxnet_params import read_params
from wsss.retrain.weights.naming import fit_positions, renamed
from wsss.retrain.weights.pretrained import PRETRAINED, fetch, names_for

_log = logging.getLogger(__name__)
_COUNTERS = "num_batches_tracked"


def init_path(text: str, model: str) -> Path | None:
    """The file that `retrain.init` names, downloaded if need be; None for ``random`` and ``clip``.

    Args:
        text: `retrain.init`.
        model: `retrain.model`.

    Raises:
        ArtifactError: there is no such file, or it cannot be downloaded.
        ValueError: named weights are for another network.
    """
    if text in ("random", "clip"):
        return None
    if text in PRETRAINED:
        return fetch(text, model)
    path = expand_path(text)
    if not path.is_file():
        names = [*names_for(model), "random"]
        raise ArtifactError(
            f"retrain.init: {path} is no file; pass a backbone checkpoint (.safetensors, .pth"
            f"{', .params' if model.endswith('resnet38') else ''}) or {' or '.join(names)}"
        )
    return path


def load_backbone(backbone: nn.Module, path: Path) -> None:
    """Fill every tensor of a backbone from a checkpoint.

    The file may hold the bare backbone, or a whole model with the prefix ``backbone.`` or
    ``base.``; heads are left out. Tensors may be named as in mmsegmentation or in a way that
    `wsss.retrain.weights.naming` renames. Every tensor must be there with the right shape: a
    backbone that is random in part trains badly without an error. Only a positional table is
    resized, to the grid of the crop.

    Args:
        path: ``.safetensors``, MXNet's ``.params``, or what `torch.save` wrote (tensors only).

    Raises:
        ArtifactError: the file is damaged or fits another architecture.
        UnsafeCheckpointError: the file holds code.
    """
    stored = renamed(_backbone_part(_tensors(path)))
    if isinstance(backbone, DeiT) and "pos_embed" in stored:
        where = f"{path}: pos_embed"
        stored["pos_embed"] = fit_positions(stored["pos_embed"], backbone.grid, where)
    expected = {k: v for k, v in backbone.state_dict().items() if not k.endswith(_COUNTERS)}
    fitting = {
        k: stored[k] for k, v in expected.items() if k in stored and stored[k].shape == v.shape
    }
    if len(fitting) < len(expected):
        other = [k for k in expected if k in stored and k not in fitting]
        absent = [k for k in expected if k not in stored]
        examples = [f"lacks {absent[0]}"] if absent else []
        if other:
            shape, right = tuple(stored[other[0]].shape), tuple(expected[other[0]].shape)
            examples.append(f"has {other[0]} as {shape}, expected {right}")
        raise ArtifactError(
            f"{path}: fits {len(fitting)} of {len(expected)} tensors of the backbone "
            f"{type(backbone).__name__} ({'; '.join(examples)}; its first name is "
            f"{next(iter(stored), 'none')!r}); pass a checkpoint of this architecture in "
            "mmsegmentation's or its authors' naming"
        )
    backbone.load_state_dict(fitting, strict=False)
    _log.info("backbone from %s, %d further tensors left out", path, len(stored) - len(fitting))


def _tensors(path: Path) -> dict[str, torch.Tensor]:
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise_unless_about(path, error)
            raise ArtifactError(f"{path}: is damaged or no safetensors file ({error})") from None
    if path.suffix == ".params":
        return {k: torch.tensor(v, dtype=torch.float32) for k, v in read_params(path).items()}
    loaded: Mapping[str, Any] = load_mmengine_checkpoint(path)
    for key in ("state_dict", "model"):
        if isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
    return {name: value for name, value in loaded.items() if isinstance(value, torch.Tensor)}


def _backbone_part(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    bare = {name.removeprefix("module."): value for name, value in tensors.items()}
    for prefix in ("backbone.", "base."):
        inside = {k.removeprefix(prefix): v for k, v in bare.items() if k.startswith(prefix)}
        if inside:
            return inside
    return bare
