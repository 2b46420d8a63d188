"""Let packages ask during their import whether there is a GPU, without starting CUDA.

What breaks: mmengine and mmcv ask ``torch.cuda.is_available()`` while they are imported, which
starts CUDA's driver (seen with onedl-mmengine 0.10.12, torch 2.13). The driver reads
``CUDA_VISIBLE_DEVICES`` then, before a job has chosen its GPU: on a machine with several GPUs, all
jobs would compute on the first one, whichever they hold.

Remedy: torch asks NVML instead. Delete this when both ask where they need the answer.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

_VARIABLE = "PYTORCH_NVML_BASED_CUDA_CHECK"


@contextmanager
def asks_without_starting_cuda() -> Iterator[None]:
    """Inside, ``torch.cuda.is_available()`` leaves the driver alone."""
    before = os.environ.get(_VARIABLE)
    os.environ[_VARIABLE] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_VARIABLE]
        else:
            os.environ[_VARIABLE] = before
