"""Training of a segmenter in bfloat16: ``compute.precision: bf16``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from wsss.retrain.mm import OPTIM_WRAPPERS, OptimWrapper


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
