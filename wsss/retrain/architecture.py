"""The network: a model config of mmsegmentation with our labels, crop and normalisation.

Most are stock configs. The DeepLabs of the papers' tables, which mmsegmentation lacks, consist of
its ResNet or our `ResNet38` and a head of `wsss.retrain.networks.deeplab_heads`, inside the frame
of its DeepLabV3 config. So does `clip-vit`, the image tower of a CLIP with a decoder of ours.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel
from pydantic import ConfigDict as PydanticConfig
from torch import nn

from wsss.clip.load import LoadedClip
from wsss.clip.model_config import check_tower, tower_config
from wsss.compute.distributed import SharedBatchNorm
from wsss.config.retrain import BatchNorm, crop_problem
from wsss.retrain import losses
from wsss.retrain.mm import (
    CONFIGS,
    MODELS,
    ConfigDict,
    DefaultScope,
    MmConfig,
    register_all_modules,
)
from wsss.retrain.networks import clip_vit, deeplab_heads, deit, resnet38

MODELS.register_module("SharedBN", module=SharedBatchNorm)
REGISTERED = [
    __name__,
    *(module.__name__ for module in (clip_vit, deeplab_heads, deit, losses, resnet38)),
]
"""Importing them registers what a model config may name."""

_FRAME = "deeplabv3/deeplabv3_r101-d8_4xb4-20k_voc12aug-512x512.py"
STOCK = {
    **{
        f"segformer-b{size}": f"segformer/segformer_mit-b{size}_8xb2-160k_ade20k-512x512.py"
        for size in range(6)
    },
    "deeplabv3plus-r50": "deeplabv3plus/deeplabv3plus_r50-d8_4xb4-20k_voc12aug-512x512.py",
    "deeplabv3plus-r101": "deeplabv3plus/deeplabv3plus_r101-d8_4xb4-20k_voc12aug-512x512.py",
    "deeplabv1-resnet38": _FRAME,
    "deeplabv2-resnet38": _FRAME,
    "deeplabv2-resnet101": _FRAME,
    "segmenter-deit-s": "segmenter/segmenter_vit-s_mask_8xb1-160k_ade20k-512x512.py",
    "clip-vit": _FRAME,
}
"""The stock config that each network starts from, by `retrain.model`."""
_SLOW_MOMENTUM = 3e-4  # of ResNet38's running statistics, where its affine part is not trained


class ClipTower(BaseModel):
    """The image tower behind `clip-vit`, without its weights."""

    model_config = PydanticConfig(frozen=True, extra="forbid")

    architecture: dict[str, Any]
    """See `wsss.clip.model_config.tower_config`."""
    mean: tuple[float, float, float]
    """This and what follows normalise RGB in 0 … 1."""
    std: tuple[float, float, float]

    @staticmethod
    def of(clip: LoadedClip) -> ClipTower:
        """That of a CLIP."""
        return ClipTower(architecture=tower_config(clip.config), mean=clip.mean, std=clip.std)


def model_config(
    name: str,
    *,
    labels: int,
    crop: int,
    norm: Literal["BN", "SyncBN", "SharedBN"] = "BN",
    batch_norm: BatchNorm = "trained",
    label_smoothing: float = 0.0,
    clip: ClipTower | None = None,
    frozen_clip: bool = False,
    clip_stem: bool = True,
) -> dict[str, Any]:
    """The model section of an mmsegmentation config.

    Where there is a stock config we start from it, so that checkpoints fit those of mmsegmentation.
    What we change: the number of labels, no download of weights, the crop to which a batch is
    padded, and the mean of the loss, which is taken over labelled pixels (stock divides by all
    pixels, so that a pseudo mask with a wide ignore band would learn more slowly; with no labelled
    pixel the loss is 0).

    Args:
        name: `retrain.model`.
        labels: number of labels, background included.
        crop: side of the training crop, pixels.
        norm: batch normalisation; ``SyncBN`` where several GPUs share a batch, ``SharedBN`` where
            several processes share it on a CPU.
        batch_norm: ``retrain.batch_norm``.
        label_smoothing: ``retrain.label_smoothing``.
        clip: the tower of `clip-vit`; this and the next two are not read for the others.
        clip_stem: ``retrain.clip_stem``.

    Raises:
        ValueError: the crop does not suit the network.
    """
    patch = clip.architecture["vision_cfg"]["patch_size"] if clip and name == "clip-vit" else None
    if problem := crop_problem(name, crop, patch):
        raise ValueError(problem)
    model = MmConfig.fromfile(CONFIGS / STOCK[name]).model
    model.pretrained = None
    if name.startswith(("deeplabv1", "deeplabv2")):
        _papers_deeplab(model, name)
    elif name == "segmenter-deit-s":
        _papers_segmenter(model, crop)
    elif name == "clip-vit":
        assert clip is not None, "clip-vit has the tower of a CLIP"
        _clip_segmenter(model, crop, clip, frozen=frozen_clip, stem=clip_stem)
    model.backbone.init_cfg = None
    model.data_preprocessor.size = (crop, crop)
    for part in (model.backbone, model.decode_head, model.get("auxiliary_head")):
        if part is None:
            continue
        if "norm_cfg" in part and part.norm_cfg.type == "SyncBN":
            part.norm_cfg.type = norm
            _fix(part, name, batch_norm, backbone=part is model.backbone)
        if "num_classes" in part:
            part.num_classes = labels
            part.loss_decode.avg_non_ignore = True
            part.loss_decode.update(type="SmoothedCrossEntropy", label_smoothing=label_smoothing)
    return model.to_dict()


def build_model(config: dict[str, Any]) -> nn.Module:
    """Build the network; its weights are not initialised yet (`init_weights` does that)."""
    register_all_modules(init_default_scope=False)
    with DefaultScope.overwrite_default_scope("mmseg"):
        return MODELS.build(ConfigDict(config))


def _papers_deeplab(model: Any, name: str) -> None:
    """ResNet-101 of torchvision's kind or ResNet38, at output stride 8, and one head."""
    norm = {"type": "SyncBN", "requires_grad": True}
    if name.endswith("resnet38"):
        model.backbone = ConfigDict(type="ResNet38", norm_cfg=norm, norm_eval=False)
    else:  # the stem is one 7x7 convolution, and every block of a dilated stage dilates alike
        model.backbone.update(type="ResNet", contract_dilation=False, out_indices=(3,))
    shared = {
        "in_channels": 4096 if name.endswith("resnet38") else 2048,
        "in_index": 0,
        "num_classes": model.decode_head.num_classes,
        "align_corners": True,
        "loss_decode": model.decode_head.loss_decode,
    }
    if name.startswith("deeplabv1"):
        head = {"type": "DeepLabV1Head", "channels": 512, "dropout_ratio": 0.5, "norm_cfg": norm}
    else:
        head = {"type": "DeepLabV2Head"}
    model.decode_head = ConfigDict(head | shared)
    del model.auxiliary_head


def _papers_segmenter(model: Any, crop: int) -> None:
    """Segmenter on DeiT-S: its bias, its normalisation of images, dropout in the decoder."""
    frame = MmConfig.fromfile(CONFIGS / _FRAME).model.data_preprocessor
    model.data_preprocessor.update(mean=frame.mean, std=frame.std)  # ImageNet's
    model.backbone.update(type="DeiT", img_size=(crop, crop))
    model.decode_head.update(drop_rate=0.1, attn_drop_rate=0.1, drop_path_rate=0.0)
    model.test_cfg.update(crop_size=(crop, crop), stride=(2 * crop // 3,) * 2)  # of mmseg's tools


def _clip_segmenter(model: Any, crop: int, clip: ClipTower, *, frozen: bool, stem: bool) -> None:
    """The image tower of a CLIP, its normalisation of images, and the decoder over it."""
    check_tower(clip.architecture)
    vision = clip.architecture["vision_cfg"]
    mean, std = ([255 * channel for channel in channels] for channels in (clip.mean, clip.std))
    model.data_preprocessor.update(mean=mean, std=std)
    tower = {"tower": clip.architecture, "crop": crop, "frozen": frozen}
    model.backbone = ConfigDict({"type": "ClipViT"} | tower)
    head = {
        "type": "ClipDecoder",
        "has_stem": stem,
        "dropout_ratio": 0.1,
        "num_classes": model.decode_head.num_classes,
        "norm_cfg": {"type": "SyncBN", "requires_grad": True},
        "align_corners": False,
        "loss_decode": model.decode_head.loss_decode,
    }
    model.decode_head = ConfigDict(
        head | clip_vit.decoder_channels(vision["layers"], vision["width"])
    )
    del model.auxiliary_head


def _fix(part: Any, name: str, batch_norm: BatchNorm, *, backbone: bool) -> None:
    """Take the affine part of batch normalisation, and with ``frozen`` its statistics, as given."""
    if batch_norm == "trained":
        return
    part.norm_cfg.requires_grad = False
    if name.endswith("resnet38"):
        part.norm_cfg.momentum = _SLOW_MOMENTUM
    if backbone and batch_norm == "frozen":
        part.norm_eval = True
