"""Trainings that run once in one process and once in two."""

import json
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from tests.builders import CLIP_ES
from tests.dino.models import SECTION as DINO
from tests.refine.chain import cut_short
from wsss.artifacts.stage import STAGES
from wsss.compute import distributed
from wsss.config.base import overlay
from wsss.config.load import from_mapping
from wsss.config.model import Config
from wsss.config.refine import TrainingConfig
from wsss.refine import stage
from wsss.refine.training.trainer import Trainer, TrainingStoppedError
from wsss.retrain import recipe
from wsss.retrain.runner import ProgressHook
from wsss.retrain.train import train as retrain

STEPS = {"iterations": 2, "warmup": 1, "batch": 4, "checkpoint_every": 2, "crop": 64, "threads": 1}
REFINERS: dict[str, dict[str, Any]] = {
    "weclip": {"refine": {"weclip": {"width": 16, "dropout": 0.0, "rfm_start": 0}}},
    "weakclip": {
        "refine": {"weakclip": {"width": 16, "channels": 16, "dropout": 0.0, "drop_path": 0.0}}
    },
    "excel": {
        "refine": {"excel": {"width": 16, "dropout": 0.0, "lvc_start": 0}},
        "cams": {"source": "patch_text", "affinity": {"last_blocks": 6}},
    },
    "weclip_plus": {
        "refine": {
            "weclip_plus": {
                "width": 16,
                "dropout": 0.0,
                "self_training_start": 0,
                "self_training_confidence": 0.1,
            }
        },
        "dino": DINO,
    },
}
SEGMENTER = {"crop": 48, "batch": 4, "iterations": 2, "warmup": 1, "checkpoint_every": 2}
SEGMENTER["threads"] = 1


def refiner(folder: Path, method: str, **changes: Any) -> Config:
    """A small refiner without dropout, whose random numbers differ between processes."""
    base = json.loads((folder / "chain.json").read_text())
    options = overlay({"refine": {"method": method, "train": STEPS}}, REFINERS[method])
    return from_mapping(overlay(overlay(base, options), changes))


def train_refiner(folder: Path, config: Config, out: Path) -> None:
    """Train it on the data of the fixture."""
    paths = (folder / "manifest", [folder / "cams-train.h5"], out / "refiner.safetensors")
    paths += (out / "refiner.csv", out / "work", folder / "cache", [folder / "seeds.h5"])
    stage.train(*paths, **STAGES["refine_train"].arguments(config))


def segmenter(folder: Path, **changes: Any) -> Config:
    """A small SegFormer."""
    base = overlay(CLIP_ES, json.loads((folder / "chain.json").read_text()))
    return from_mapping(overlay(base, {"retrain": SEGMENTER | changes}))


def train_segmenter(folder: Path, config: Config, out: Path) -> None:
    """Train it on the data of the fixture."""
    paths = (folder / "manifest", [folder / "masks.h5"], out / "segmenter.safetensors")
    with mock.patch.object(recipe, "model_config", _without_dropout):
        values = STAGES["retrain"].select(config)
        files = (*paths, out / "segmenter.csv", out / "segmenter")
        retrain(*files, **values, compute=config.compute)


_build = recipe.model_config


def _without_dropout(*args: Any, **kwargs: Any) -> dict[str, Any]:
    model = _build(*args, **kwargs)
    model["backbone"]["drop_path_rate"] = 0.0
    model["decode_head"]["dropout_ratio"] = 0.0
    return model


def gradients(work: Callable[[], None]) -> list[Tensor]:
    """The gradients of the first step of a training with AdamW."""
    grads: list[Tensor] = []
    step = torch.optim.AdamW.step

    def recorded(self: torch.optim.AdamW, *args: Any, **kwargs: Any) -> Any:
        if not grads:
            groups = self.param_groups
            every = [parameter.grad for group in groups for parameter in group["params"]]
            grads.extend(grad.clone() for grad in every if grad is not None)
        return step(self, *args, **kwargs)

    with mock.patch.object(torch.optim.AdamW, "step", recorded):
        work()
    return grads


def compared(folder: Path, out: Path) -> None:
    """Store the gradients that must not depend on the number of processes."""
    grads = {}
    for method in REFINERS:
        config = refiner(folder, method)
        grads[method] = gradients(lambda c=config, m=method: train_refiner(folder, c, out / m))
    grads["segmenter"] = gradients(lambda: train_segmenter(folder, segmenter(folder), out / "seg"))
    grads["norm"] = normalised()
    grads["norm in bfloat16"] = normalised(torch.bfloat16)
    if distributed.rank() == 0:
        torch.save(grads, out / "gradients.pt")


def normalised(dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """State, output and gradients of batch normalisation of 6 images, or of this process's 3.

    The number of pixels, 630, is none of bfloat16.
    """
    generator = torch.Generator().manual_seed(0)
    size = (6, 4, 15, 7)
    images = (3 + torch.randn(size, generator=generator)).to(dtype)
    weights = torch.randn(size, generator=generator).to(dtype)
    mine = slice(3 * distributed.rank(), 3 * distributed.rank() + 6 // distributed.world_size())
    norm = distributed.SharedBatchNorm(4)
    nn.init.normal_(norm.weight, generator=generator)
    inputs = images[mine].clone().requires_grad_()
    outputs = norm(inputs)
    (outputs * weights[mine]).sum().backward()
    sums = [distributed.all_sum(norm.weight.grad), norm.running_mean, norm.running_var]
    assert outputs.dtype == dtype
    pieces = [torch.zeros(size), torch.zeros(size)]
    for piece, value in zip(pieces, (outputs.detach(), inputs.grad), strict=True):
        piece[mine] = value
    return sums + [distributed.all_sum(piece) for piece in pieces]


def resumed(folder: Path, out: Path) -> None:
    """A training of two processes that is interrupted and resumed, and one that is not."""
    long = {"iterations": 4}
    config = refiner(folder, "weclip", refine={"train": long, "weclip": {"dropout": 0.5}})
    train_refiner(folder, config, out / "whole")
    with cut_short(Trainer, "_step", lambda index, *_: index == 3):
        train_refiner(folder, config, out / "cut")
    train_refiner(folder, config, out / "cut")
    train_segmenter(folder, segmenter(folder, **long), out / "whole")
    with cut_short(ProgressHook, "before_train_iter", lambda runner: runner.iter == 3):
        train_segmenter(folder, segmenter(folder, **long), out / "cut")
    train_segmenter(folder, segmenter(folder, **long), out / "cut")


def stopped(out: Path) -> None:
    """Only the last process receives a signal, and both stop after the same step."""
    module = nn.Linear(2, 1)
    settings = TrainingConfig(iterations=8, warmup=0, checkpoint_every=100)
    seen: list[int] = []

    def losses(step: int, batch: Tensor) -> Mapping[str, Tensor]:
        seen.append(step)
        if step == 4 and distributed.rank() == distributed.world_size() - 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return {"loss": module(batch).square().mean()}

    def batches(start: int) -> Iterator[Tensor]:
        while True:
            yield torch.ones(3, 2)

    trainer = Trainer[Tensor](
        module, settings, seed=0, work=out / "stopped", key="t", description="stopped"
    )
    try:
        trainer.fit(batches, losses)
    except TrainingStoppedError:
        (out / f"stopped-{distributed.rank()}").write_text(str(seen[-1]))


def refused(folder: Path, out: Path) -> None:
    """What several processes cannot do, with its message."""
    messages = []
    odd = {"refine": {"train": {"batch": 3}}}
    coupled = {"refine": {"excel": {"relation_mean": "batch"}}}
    for changes in (odd, coupled):
        try:
            train_refiner(folder, refiner(folder, "excel", **changes), out / "never")
        except ValueError as error:
            messages.append(str(error))
    if distributed.rank() == 0:
        (out / "refused.json").write_text(json.dumps(messages))


def main(folder: Path) -> None:
    """All of it, as one of several processes."""
    torch.set_num_threads(1)
    distributed.join_group(torch.device("cpu"))
    out = folder / "two"
    out.mkdir(exist_ok=True)
    with mock.patch.object(distributed, "leave_group", distributed.barrier):
        compared(folder, out)
        resumed(folder, out)
        stopped(out)
        refused(folder, out)
    distributed.leave_group()
