"""The one door to mmsegmentation: all that this room uses of mmseg, mmengine and mmcv.

A plain import will not do. torchvision and timm, which they import, need remedies; and they print
and warn about optional packages that none of our models uses.
"""

# ruff: noqa: E402

from __future__ import annotations

import contextlib
import io
import warnings
from pathlib import Path

from wsss._compat.cuda_check import asks_without_starting_cuda
from wsss._compat.missing_packages import SEGMENTERS, require
from wsss._compat.on_demand import imported_on_demand
from wsss._compat.optional_packages import without_optional_packages
from wsss._compat.paused_collection import paused_collection
from wsss._compat.torchvision_ops import ensure_torchvision_imports

_UNUSED = (
    "mmengine._strategy.fsdp", "mmengine.model.wrappers.fully_sharded_distributed",
    "mmseg.utils.tokenizer", "scipy.interpolate", "scipy.ndimage", "scipy.optimize",
)  # fmt: skip

require(*SEGMENTERS)
ensure_torchvision_imports()
with (
    paused_collection(),
    contextlib.redirect_stdout(io.StringIO()),
    warnings.catch_warnings(),
    without_optional_packages(),
    imported_on_demand(*_UNUSED),
    asks_without_starting_cuda(),
):
    warnings.simplefilter("ignore")
    import mmseg
    import mmseg.datasets
    import mmseg.engine
    import mmseg.models

from mmcv import imresize
from mmcv.cnn import ConvModule, build_norm_layer
from mmcv.transforms import BaseTransform
from mmengine.config import Config as MmConfig
from mmengine.config import ConfigDict
from mmengine.dataset import base_dataset, pseudo_collate
from mmengine.dist import get_dist_info, get_rank, master_only
from mmengine.hooks import Hook
from mmengine.model import (
    BaseModule,
    MMDistributedDataParallel,
    is_model_wrapper,
    revert_sync_batchnorm,
)
from mmengine.optim import OptimWrapper
from mmengine.registry import FUNCTIONS, OPTIM_WRAPPERS, DefaultScope
from mmengine.runner import Runner
from mmengine.runner.checkpoint import get_external_models
from mmseg.datasets import BaseSegDataset
from mmseg.models.backbones import VisionTransformer
from mmseg.models.data_preprocessor import SegDataPreProcessor
from mmseg.models.decode_heads import decode_head
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.losses import CrossEntropyLoss
from mmseg.registry import DATA_SAMPLERS, DATASETS, HOOKS, MODELS, RUNNERS, TRANSFORMS
from mmseg.utils import register_all_modules
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm

# said of every batch whose sides are no multiple of the stride plus one; the papers' crops are none
warnings.filterwarnings("ignore", message="When align_corners=True", category=UserWarning)

CONFIGS = Path(mmseg.__file__).parent / ".mim" / "configs"
"""The stock configs."""

__all__ = [
    "CONFIGS",
    "DATASETS",
    "DATA_SAMPLERS",
    "FUNCTIONS",
    "HOOKS",
    "MODELS",
    "OPTIM_WRAPPERS",
    "RUNNERS",
    "TRANSFORMS",
    "BaseDecodeHead",
    "BaseModule",
    "BaseSegDataset",
    "BaseTransform",
    "BatchNorm",
    "ConfigDict",
    "ConvModule",
    "CrossEntropyLoss",
    "DefaultScope",
    "Hook",
    "MMDistributedDataParallel",
    "MmConfig",
    "OptimWrapper",
    "Runner",
    "SegDataPreProcessor",
    "VisionTransformer",
    "base_dataset",
    "build_norm_layer",
    "decode_head",
    "get_dist_info",
    "get_external_models",
    "get_rank",
    "imresize",
    "is_model_wrapper",
    "master_only",
    "pseudo_collate",
    "register_all_modules",
    "revert_sync_batchnorm",
]
