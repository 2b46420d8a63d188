"""The network: mmsegmentation's own model configs with our labels, crop and normalisation layer."""

from __future__ import annotations

from typing import Any, Literal

from torch import nn

from wsss.retrain.mm import (
    CONFIGS,
    MODELS,
    ConfigDict,
    DefaultScope,
    MmConfig,
    register_all_modules,
)

_STOCK = {
    **{
        f"segformer-b{size}": f"segformer/segformer_mit-b{size}_8xb2-160k_ade20k-512x512.py"
        for size in range(6)
    },
    "deeplabv3plus-r50": "deeplabv3plus/deeplabv3plus_r50-d8_4xb4-20k_voc12aug-512x512.py",
    "deeplabv3plus-r101": "deeplabv3plus/deeplabv3plus_r101-d8_4xb4-20k_voc12aug-512x512.py",
}
SMALLEST_SIDE = 32
"""Pixels; below it the strided attention of SegFormer's first stage has no key left."""


def model_config(
    name: str, *, labels: int, crop: int, norm: Literal["BN", "SyncBN"] = "BN"
) -> dict[str, Any]:
    """The model section of an mmsegmentation config.

    Starts from the stock config, so that checkpoints fit those of mmsegmentation. What we change:
    the number of labels, no download of weights, the crop to which a batch is padded, and the mean
    of the loss, which is taken over labelled pixels (stock divides by all pixels, so that a pseudo
    mask with a wide ignore band would learn more slowly; with no labelled pixel the loss is 0).

    Args:
        name: `retrain.model`.
        labels: number of labels, background included.
        crop: side of the training crop, pixels.
        norm: batch normalisation; ``SyncBN`` where several GPUs share a batch.

    Raises:
        ValueError: the crop is too small for the network.
    """
    if crop < SMALLEST_SIDE:
        raise ValueError(f"retrain.crop is {crop} pixels, expected at least {SMALLEST_SIDE}")
    model = MmConfig.fromfile(CONFIGS / _STOCK[name]).model
    model.pretrained = None
    model.backbone.init_cfg = None
    model.data_preprocessor.size = (crop, crop)
    for part in (model.backbone, model.decode_head, model.get("auxiliary_head")):
        if part is None:
            continue
        if "norm_cfg" in part and part.norm_cfg.type == "SyncBN":
            part.norm_cfg.type = norm
        if "num_classes" in part:
            part.num_classes = labels
            part.loss_decode.avg_non_ignore = True
    plain: dict[str, Any] = model.to_dict()
    return plain


def build_model(config: dict[str, Any]) -> nn.Module:
    """Build the network; its weights are not initialised yet (`init_weights` does that)."""
    register_all_modules(init_default_scope=False)
    with DefaultScope.overwrite_default_scope("mmseg"):
        model: nn.Module = MODELS.build(ConfigDict(config))
    return model
