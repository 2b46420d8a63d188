"""Optimiser and schedule of each network, as its paper's recipe or mmsegmentation's has them.

| network | optimiser | learning rates | decay |
|---|---|---|---|
| SegFormer | AdamW | head x10 | linear to 0 (stock) |
| CLIP ViT | AdamW | tower x0.1 (`clip_lr`) | linear to 0 |
| DeepLabV3+ | SGD | all alike | power 0.9 to a hundredth (stock) |
| DeepLabV1, DeepLabV2 (1) | SGD | new weights x10, new biases x20 | power 0.9 to 0 |
| Segmenter | SGD, no weight decay | backbone x0.1 | power 0.9 to 0 |

(1) DeepLabV2's new biases have no weight decay.

The backbones of DeepLabV1 and V2 have no biases, so the rule "biases x2" of their
recipes has no effect there.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from wsss.config.retrain import RetrainConfig
from wsss.retrain.mm import OPTIM_WRAPPERS, OptimWrapper

_NEW = 10.0  # learning rate of a DeepLab head's weights, as a multiple of the backbone's
_LINEAR = {"power": 1.0, "eta_min": 0.0}
_CLASSIFIERS = {
    "deeplabv1": ("decode_head.conv_seg",),
    "deeplabv2": tuple(f"decode_head.classifiers.{index}" for index in range(4)),
}


@OPTIM_WRAPPERS.register_module()
class BFloat16OptimWrapper(OptimWrapper):  # type: ignore[misc]
    """Network and loss of a step under torch's autocast to bfloat16.

    mmengine's ``AmpOptimWrapper`` with that type scales the loss as well, which the range of
    bfloat16 makes needless, and runs on GPUs alone.
    """

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Of the forward pass."""
        device = next(model.parameters()).device
        with super().optim_context(model), torch.autocast(device.type, torch.bfloat16):
            yield


def optimisation(retrain: RetrainConfig, *, bfloat16: bool = False) -> dict[str, Any]:
    """``optim_wrapper`` and ``param_scheduler`` of an mmengine config.

    Args:
        bfloat16: multiply in bfloat16.
    """
    kind = "BFloat16OptimWrapper" if bfloat16 else "OptimWrapper"
    wrapper, poly = _of_network(retrain)
    rise = {"type": "LinearLR", "start_factor": 1e-6, "by_epoch": False, "begin": 0}
    fall = {"type": "PolyLR", "by_epoch": False, "begin": retrain.warmup, "end": retrain.iterations}
    # mmengine reaches the full rate one step before `end`; with a single step it never would.
    schedule = [{**rise, "end": retrain.warmup}] if retrain.warmup > 1 else []
    return {
        "optim_wrapper": {"type": kind, **wrapper},
        "param_scheduler": [*schedule, {**fall, **poly}],
    }


def _of_network(retrain: RetrainConfig) -> tuple[dict[str, Any], dict[str, float]]:
    family = retrain.model.split("-")[0]
    sgd = {"type": "SGD", "lr": retrain.lr, "momentum": 0.9, "weight_decay": 0.0005}
    to_zero = {"power": 0.9, "eta_min": 0.0}
    adam = {"type": "AdamW", "lr": retrain.lr, "betas": (0.9, 0.999), "weight_decay": 0.01}
    if family == "clip":
        return _wrapper(adam, {"backbone": {"lr_mult": retrain.clip_lr}}), _LINEAR
    if family == "segformer":
        keys = {
            "pos_block": {"decay_mult": 0.0},
            "norm": {"decay_mult": 0.0},
            "head": {"lr_mult": 10.0},
        }
        return _wrapper(adam, keys), _LINEAR
    if family == "segmenter":
        return _wrapper(sgd | {"weight_decay": 0.0}, {"backbone": {"lr_mult": 0.1}}), to_zero
    if family in _CLASSIFIERS:
        of_bias = {"lr_mult": 2 * _NEW} | ({"decay_mult": 0.0} if family == "deeplabv2" else {})
        biases = {f"{name}.bias": of_bias for name in _CLASSIFIERS[family]}
        return _wrapper(sgd, {"decode_head": {"lr_mult": _NEW}} | biases), to_zero
    return {"optimizer": sgd}, {"power": 0.9, "eta_min": retrain.lr / 100}  # stock: 0.01 to 1e-4


def _wrapper(optimizer: dict[str, Any], keys: dict[str, Any]) -> dict[str, Any]:
    return {"optimizer": optimizer, "paramwise_cfg": {"custom_keys": keys}}
