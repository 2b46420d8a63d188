"""Read checkpoints that mmengine wrote without unrestricted unpickling.

What breaks: a checkpoint of onedl-mmengine 0.10.12 (and of mmengine 0.10) holds `HistoryBuffer`
objects next to its weights, so `torch.load(weights_only=True)` refuses it. mmengine's own loader
then falls back to `weights_only=False`, which runs any code that the file names; and the list of
names that it allows before that contains `getattr`, which is as good as no list.

Remedy: allow the few harmless names that such a file needs, with a `getattr` that only reaches the
four statistics of `HistoryBuffer`. mmengine's loader is never called. Delete this when mmengine
writes checkpoints that torch reads with `weights_only=True` alone.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wsss._compat.missing_packages import require
from wsss._compat.torch_archives import packed, refusal
from wsss.errors import WsssError, raise_unless_about

require("mmengine")
from mmengine.logging.history_buffer import HistoryBuffer  # noqa: E402

_STATISTICS = ("min", "max", "current", "mean")


class UnsafeCheckpointError(WsssError, RuntimeError):
    """The file is no checkpoint, is damaged, or holds more than weights and histories."""


def load_mmengine_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint of mmengine, mmseg or mmpretrain onto the CPU.

    Args:
        path: a file that `torch.save` wrote: a dictionary.

    Returns:
        The dictionary, with tensors on the CPU.

    Raises:
        UnsafeCheckpointError: see the class; nothing of the file was executed.
    """
    try:
        if problem := packed(path):
            raise UnsafeCheckpointError(
                f"{path}: refused, {problem}; pass a file that torch.save wrote, or .safetensors"
            )
        with torch.serialization.safe_globals(_allowed()):
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except UnsafeCheckpointError:
        raise
    except pickle.UnpicklingError as error:
        raise UnsafeCheckpointError(
            f"{path}: refused, {refusal(error)}; pass a file with tensors only, best as "
            ".safetensors"
        ) from None
    except Exception as error:  # torch's reader raises anything on made-up files
        if not isinstance(error, MemoryError):  # the file may ask for any amount
            raise_unless_about(path, error)
        shown = " ".join(str(error).split())[:300] or type(error).__name__
        raise UnsafeCheckpointError(
            f"{path}: is damaged or no torch checkpoint ({shown}); fetch or export it again"
        ) from None
    if not isinstance(loaded, dict):
        raise UnsafeCheckpointError(
            f"{path}: holds a {type(loaded).__name__}, expected a dictionary of tensors"
        )
    return loaded


def _allowed() -> list[Any]:
    reconstruct = np._core.multiarray._reconstruct  # type: ignore[attr-defined]
    scalar = np._core.multiarray.scalar  # type: ignore[attr-defined]
    kinds = {type(np.dtype(kind)) for kind in (np.float64, np.int64, np.float32, np.int32)}
    # numpy 1 wrote its helpers under another module name.
    old = [
        (reconstruct, "numpy.core.multiarray._reconstruct"),
        (scalar, "numpy.core.multiarray.scalar"),
    ]
    numpy = [reconstruct, scalar, np.ndarray, np.dtype, *kinds, *old]
    return [HistoryBuffer, (_statistic, "builtins.getattr"), *numpy]


def _statistic(parent: Any, name: str) -> Any:
    """What `getattr` means inside a checkpoint."""
    if parent is not HistoryBuffer or name not in _STATISTICS:
        raise pickle.UnpicklingError(f"GLOBAL getattr({parent!r}, {name!r}) is not allowed")
    return getattr(HistoryBuffer, name)
