"""mmengine's runner, made resumable to the bit, safe in what it loads, and quiet on the terminal.

With mmengine's runner, users of mmsegmentation know the config in the work folder, the checkpoints
and the log, and training on several GPUs comes with it. An exact resume needs three additions: data
that depends on (seed, position) alone (the data set), random numbers of the network (dropout, drop
path) that depend on (seed, step) alone (`StepSeedHook`), and checkpoints that appear whole or not
at all.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from wsss._compat.mmengine_checkpoints import UnsafeCheckpointError, load_mmengine_checkpoint
from wsss.artifacts.atomic import atomic_path, write_text
from wsss.artifacts.checksum import sidecar
from wsss.artifacts.digest import digest_file
from wsss.artifacts.errors import ArtifactError
from wsss.artifacts.progress import track
from wsss.artifacts.training import check_loss
from wsss.compute import distributed, seeding
from wsss.errors import raise_unless_about
from wsss.retrain.mm import (
    HOOKS,
    RUNNERS,
    Hook,
    MMDistributedDataParallel,
    Runner,
    get_rank,
    is_model_wrapper,
    master_only,
    revert_sync_batchnorm,
)
from wsss.retrain.weights.initial import load_backbone

_log = logging.getLogger(__name__)


@RUNNERS.register_module()
class SegmenterRunner(Runner):  # type: ignore[misc]
    """A `Runner` that resumes from its work folder or starts from given weights.

    Attributes:
        tower: image tower of a CLIP from which the backbone starts; None: it starts from the file
            ``cfg.init_backbone`` or at random.
    """

    tower: nn.Module | None = None

    def network(self) -> nn.Module:
        """The bare network, without the wrapper of distributed training."""
        return self.model.module if is_model_wrapper(self.model) else self.model

    def build_logger(self, *args: Any, **kwargs: Any) -> Any:
        """mmengine's logger, to its file alone."""
        logger = super().build_logger(*args, **kwargs)
        logger.handlers = [h for h in logger.handlers if isinstance(h, logging.FileHandler)]
        return logger

    def wrap_model(self, model_wrapper_cfg: Any, model: nn.Module) -> nn.Module:
        """Put the network on ``cfg.device`` (stock takes CUDA whenever there is one)."""
        if self.distributed:
            device = torch.device(self.cfg.device)
            return MMDistributedDataParallel(
                module=model.to(device),
                device_ids=[device] if device.type == "cuda" else None,
                forward_sync_buffers=False,
            )
        return revert_sync_batchnorm(model).to(self.cfg.device)

    def train(self) -> nn.Module:
        """Train, and end the data workers at once: the garbage collector takes 5 s per worker."""
        try:
            return super().train()
        finally:
            if hasattr(self._train_loop, "dataloader_iterator"):
                self._train_loop.dataloader_iterator = None

    def load_or_resume(self) -> None:
        """Resume from the newest whole checkpoint of the work folder, else load the backbone."""
        for path in resumable(Path(self.work_dir)):
            try:
                _check(path)
                self.resume(str(path))
            except (UnsafeCheckpointError, ArtifactError) as error:
                _log.warning("cannot resume: %s", error)
                continue
            _log.info("resuming after step %d of %d from %s", self.iter, self.max_iters, path)
            return
        backbone: Any = self.network().get_submodule("backbone")
        if self.tower is not None:
            backbone.start_from(self.tower)
        elif self.cfg.init_backbone:
            load_backbone(backbone, Path(self.cfg.init_backbone))

    def load_checkpoint(self, filename: str, *args: Any, **kwargs: Any) -> Any:
        """Load all weights, strictly; never unpickles unrestrictedly as the stock method does."""
        checkpoint = load_mmengine_checkpoint(Path(filename))
        checkpoint["meta"].pop("config", None)  # stock `resume` would execute it
        self.call_hook("after_load_checkpoint", checkpoint=checkpoint)
        self.network().load_state_dict(checkpoint["state_dict"])
        self._has_loaded = True
        return checkpoint

    @master_only  # type: ignore[untyped-decorator]
    def save_checkpoint(self, out_dir: str, filename: str, *args: Any, **kwargs: Any) -> None:
        """Write a checkpoint under a temporary name, then its digest, then rename it."""
        path = Path(out_dir) / filename
        with atomic_path(path) as temporary:
            super().save_checkpoint(str(temporary.parent), temporary.name, *args, **kwargs)
            write_text(sidecar(path), digest_file(temporary))
        for digest in path.parent.glob("iter_*.pth.sha256"):  # of those that the hook removed
            if digest != sidecar(path) and not digest.with_suffix("").exists():
                digest.unlink(missing_ok=True)

    @master_only  # type: ignore[untyped-decorator]
    def dump_config(self) -> None:
        """Write the config under one name, which mmsegmentation's tools can be given."""
        self.cfg.dump(Path(self.work_dir) / "config.py")

    def curve(self) -> dict[str, list[float]]:
        """The measurements of every step since the start, also of those before a resume."""
        scalars = self.message_hub.log_scalars
        skipped = {"time", "data_time", "base_lr", "memory"}
        names = [key.removeprefix("train/") for key in scalars if key.startswith("train/")]
        first = ["loss", "lr"]
        rest = sorted(set(names) - skipped - set(first))
        return {name: scalars[f"train/{name}"].data[0].tolist() for name in first + rest}


def resumable(work: Path) -> list[Path]:
    """Checkpoints of a work folder, newest first."""
    checkpoints = [
        (int(m[1]), path) for path in work.glob("iter_*.pth") if (m := _STEP.fullmatch(path.name))
    ]
    return [path for _, path in sorted(checkpoints, reverse=True)]


_OLDER = "going on from an older checkpoint, or anew"


def _check(path: Path) -> None:
    """Compare a checkpoint with its digest; torch ignores the checksums in it."""
    try:
        expected = sidecar(path).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise_unless_about(path, error)
        raise ArtifactError(f"{path}: its digest cannot be read ({error}); {_OLDER}") from None
    if digest_file(path) != expected:
        raise ArtifactError(f"{path}: is damaged: it does not match its digest; {_OLDER}")


_STEP = re.compile(r"iter_(\d+)\.pth")


@HOOKS.register_module()
class StepSeedHook(Hook):  # type: ignore[misc]
    """Seed dropout and drop path anew at every step, from (seed, step, device)."""

    priority = "VERY_HIGH"

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Seed all devices' generators."""
        torch.manual_seed(seeding.seed_number(self._seed, seeding.NETWORK, runner.iter, get_rank()))


@HOOKS.register_module()
class MeasurementsHook(Hook):  # type: ignore[misc]
    """Fetch what a step measured: means over all processes, in one wait for a GPU."""

    priority = "HIGHEST"

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Replace the measurements of this process, before the curve and the check of the loss."""
        outputs.update(
            distributed.means({n: value for n, value in outputs.items() if torch.is_tensor(value)})
        )


@HOOKS.register_module()
class ProgressHook(Hook):  # type: ignore[misc]
    """Show progress, and stop at the first loss that is not finite."""

    def __init__(self) -> None:
        self._steps: Iterator[int] | None = None
        self._loss = math.nan

    def before_train(self, runner: Any) -> None:
        """Start the bar; after a resume it counts the remaining steps."""
        steps = runner.max_iters - runner.iter
        if get_rank() == 0 and steps:
            self._steps = track(
                range(steps),
                total=steps,
                description="training the segmenter",
                note=lambda: f"loss {self._loss:.3f}",
            )

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Move the bar."""
        if self._steps is not None:
            next(self._steps)

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Check the loss.

        Raises:
            FloatingPointError: it is not finite.
        """
        self._loss = float(outputs["loss"].detach())
        check_loss(self._loss, runner.iter + 1, runner.max_iters, "retrain")

    def after_train(self, runner: Any) -> None:
        """Finish the bar."""
        if self._steps is not None:
            next(self._steps, None)
            self._steps = None
