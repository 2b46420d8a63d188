"""Makes the demo's CLIP from scratch: contrastive learning on an endless stream of drawn scenes.

The images come from the stream ``pretrain`` of `wsss.demo.scenes`, which shares no scene with the
demo's data set, and the captions from tags and place words alone. open_clip's loss is taken twice:
on the class token, as in CLIP, and on the mean of the projected patch tokens, because Grad-CAM
scores that mean and a model this small would not align it by itself. Both are also contrasted with
a prompt for every class name and every place word, several of which may be right: in a small batch
of captions most names stand beside no image that lacks them.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from wsss._compat import import_open_clip
from wsss.demo.captions import TEMPLATES, caption
from wsss.demo.model import build, encode_patches, encode_text, normalise, save, tokenize
from wsss.demo.names import DEMO_BACKGROUNDS, DEMO_CLASSES
from wsss.demo.scenes import render_scene

SIDE: Final = 112
"""Side in pixels of a cached scene."""
PATCH: Final = 8
LAST_SIZES: Final = ((96, 96), (96, 128), (128, 96), (112, 112))
"""Heights and widths of the last phase, so that other grids than 12 x 12 are met as well."""

_PATCH_SCALE: Final = 30.0
_WORDS: Final = (*DEMO_CLASSES, *DEMO_BACKGROUNDS)

Report = dict[str, float | int | list[float]]
Progress = Callable[[str, int, int, float], None]
"""Called with the phase, steps done, steps in all, and the latest loss (nan while drawing)."""


@dataclass(frozen=True)
class Recipe:
    """Settings of the optimisation; `weights/PROVENANCE.json` has those of the shipped weights.

    Attributes:
        steps: optimisation steps.
        scenes: scenes drawn once and seen again with other crops, colours and captions.
        batch: images a step.
        rate: highest learning rate.
        decay: weight decay of the matrices.
        warm_up: share of the steps in which the rate rises.
        thin_until: share of the steps that see only half of the patches, which is twice as fast.
        names: weight of the contrast with all names and place words.
        patches: weight of sorting the patches by names and place words.
        threads: threads of torch; the weights' last bits depend on it.
    """

    steps: int = 1700
    scenes: int = 10000
    batch: int = 64
    rate: float = 1.2e-3
    decay: float = 0.05
    warm_up: float = 0.06
    thin_until: float = 0.82
    names: float = 1.0
    patches: float = 1.0
    threads: int = 2


@dataclass(frozen=True)
class _Stream:
    images: Tensor  # scenes, 3, SIDE, SIDE; uint8
    tags: list[tuple[str, ...]]
    surroundings: list[tuple[str, ...]]


def _drawn(job: tuple[int, int]) -> tuple[NDArray[np.uint8], tuple[str, ...], tuple[str, ...]]:
    scene = render_scene(job[0], "pretrain", job[1])
    small = Image.fromarray(scene.image).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    return np.asarray(small), scene.tags, scene.surroundings


def _draw_stream(seed: int, count: int, progress: Progress | None) -> _Stream:
    images = np.empty((count, 3, SIDE, SIDE), dtype=np.uint8)
    tags, surroundings = [], []
    workers = min(os.cpu_count() or 1, 8, max(1, count // 64))
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        jobs = [(seed, index) for index in range(count)]
        for k, (image, names, words) in enumerate(pool.map(_drawn, jobs, chunksize=32)):
            images[k] = image.transpose(2, 0, 1)
            tags.append(names)
            surroundings.append(words)
            if progress and (k % 50 == 49 or k + 1 == count):
                progress("drawing scenes", k + 1, count, math.nan)
    return _Stream(torch.from_numpy(images), tags, surroundings)


def _augment(images: Tensor, size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Crop at random to ``size``, mirror half of the images and change their colours mildly."""

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(len(images), *shape, generator=generator)

    # Crops stay large: a tag speaks of the whole image, and a small crop would make it a lie.
    part = uniform(0.62, 1.0).sqrt()
    stretch = uniform(-0.12, 0.12).exp()
    wide, high = (part * stretch).clamp(max=1.0), (part / stretch).clamp(max=1.0)
    across, down = uniform(-1.0, 1.0) * (1 - wide), uniform(-1.0, 1.0) * (1 - high)
    mirror = torch.where(uniform(0.0, 1.0) < 0.5, -1.0, 1.0)
    zero = torch.zeros_like(wide)
    affine = torch.stack([wide * mirror, zero, across, zero, high, down], dim=1).view(-1, 2, 3)
    where = F.affine_grid(affine, [len(images), 3, *size], align_corners=False)
    pixels = F.grid_sample(images.float(), where, padding_mode="reflection", align_corners=False)
    grey = pixels.mean(dim=1, keepdim=True)
    pixels = grey + (pixels - grey) * uniform(0.7, 1.3, 1, 1, 1)
    pixels = (pixels - 128) * uniform(0.8, 1.2, 1, 1, 1) + 128 + uniform(-16.0, 16.0, 1, 1, 1)
    return (pixels * uniform(0.93, 1.07, 3, 1, 1)).clamp(0, 255)


def _start_positions(model: Any) -> None:
    """Start from sine waves of the patch's row and column; random positions cost many steps."""
    table = model.visual.positional_embedding
    side, width = round((len(table) - 1) ** 0.5), table.shape[1]
    place = torch.arange(side, dtype=torch.float32)
    rates = torch.exp(torch.linspace(math.log(0.3), math.log(1.6), width // 4))
    waves = torch.cat([(place[:, None] * rates).sin(), (place[:, None] * rates).cos()], dim=1)
    rows = waves[:, None].expand(side, side, -1)
    columns = waves[None].expand(side, side, -1)
    with torch.no_grad():
        table[1:] = 0.15 * torch.cat([rows, columns], dim=-1).reshape(side * side, width)


def _groups(model: Any, decay: float) -> list[dict[str, Any]]:
    """Decay matrices only; embeddings of tokens that no caption has would fade to nothing."""
    named = [(n, p) for n, p in model.named_parameters() if n != "logit_scale"]
    matrices = [p for n, p in named if p.ndim >= 2 and "embedding" not in n]
    others = [p for n, p in named if p.ndim < 2 or "embedding" in n]
    return [{"params": matrices, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}]


def pretrain(
    out: Path,
    *,
    seed: int = 0,
    recipe: Recipe | None = None,
    start: Path | None = None,
    progress: Progress | None = None,
) -> Report:
    """Train the demo's CLIP from scratch and write its weights to ``out`` (float16).

    Args:
        out: file to write, atomically.
        seed: of scenes, captions, crops and initial weights.
        recipe: settings.
        start: weights to go on from, instead of random ones.
        progress: called after each step, and now and then while scenes are drawn.

    Returns:
        Steps, minutes, and the mean loss of the first and of the last tenth of the steps.
    """
    recipe = recipe or Recipe()
    begun = time.monotonic()
    stream = _draw_stream(seed, recipe.scenes, progress)
    torch.set_num_threads(recipe.threads)
    torch.manual_seed(seed)
    model = build(start).float().train().requires_grad_(True)
    if start is None:
        _start_positions(model)
    losses = _optimise(model, stream, recipe, seed, progress, going_on=start is not None)
    save(model, out)
    tenth = max(1, len(losses) // 10)
    return {
        "seed": seed,
        "steps": recipe.steps,
        "scenes": recipe.scenes,
        "minutes": round((time.monotonic() - begun) / 60, 2),
        "loss_first": sum(losses[:tenth]) / tenth,
        "loss_last": sum(losses[-tenth:]) / tenth,
        "losses": losses,
    }


def _optimise(
    model: Any,
    stream: _Stream,
    recipe: Recipe,
    seed: int,
    progress: Progress | None,
    *,
    going_on: bool,
) -> list[float]:
    contrast = import_open_clip().loss.ClipLoss()
    optimiser = torch.optim.AdamW(_groups(model, recipe.decay), lr=recipe.rate, betas=(0.9, 0.98))
    model.logit_scale.requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    words = np.random.default_rng(np.random.SeedSequence([seed, 77]))
    known: dict[str, Tensor] = {}
    named = _named(stream)
    losses: list[float] = []
    order = torch.empty(0, dtype=torch.long)
    for step in range(recipe.steps):
        done = step / recipe.steps
        for group in optimiser.param_groups:
            group["lr"] = recipe.rate * _rate(done, recipe.warm_up)
        # CLIP ends at a temperature of 100; starting there would freeze the untrained model.
        scale = 100 if going_on else 100 ** min(1.0, 0.55 + 0.45 * done / 0.4)
        model.logit_scale.data.fill_(math.log(scale))
        if len(order) < recipe.batch:
            order = torch.cat([order, torch.randperm(len(stream.images), generator=generator)])
        chosen, order = order[: recipe.batch], order[recipe.batch :]
        thin = done < recipe.thin_until
        size = (96, 96) if thin else LAST_SIZES[step % len(LAST_SIZES)]
        images = normalise(_augment(stream.images[chosen], size, generator))
        patches = (size[0] // PATCH) * (size[1] // PATCH)
        keep = None
        if thin:
            keep = torch.rand(len(images), patches, generator=generator).argsort(dim=1)
            keep = keep[:, : patches // 2]
        texts = [caption(words, stream.tags[k], stream.surroundings[k]) for k in chosen.tolist()]
        for text in texts:
            if text not in known:
                known[text] = tokenize([text])[0]
        sentences = encode_text(model, torch.stack([known[text] for text in texts]))
        tokens, values = encode_patches(model, images, keep)
        whole = F.normalize(tokens[:, 0], dim=-1)
        mean = F.normalize(tokens[:, 1:].mean(dim=1), dim=-1)
        factor = model.logit_scale.exp()
        loss = contrast(whole, sentences, factor) + contrast(mean, sentences, factor)
        template = TEMPLATES[int(words.integers(len(TEMPLATES)))]
        names = encode_text(model, tokenize([template.format(word) for word in _WORDS]))
        for feature in (whole, mean):
            logits = factor * feature @ names.T  # (B, words)
            loss = loss + recipe.names * _contrast_with_names(logits, named[chosen])
        for each in (tokens[:, 1:], values):
            logits = _PATCH_SCALE * F.normalize(each, dim=-1) @ names.T  # (B, N, words)
            loss = loss + recipe.patches * _sort_patches(logits, named[chosen])
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        losses.append(float(loss.detach()) / 2)
        if progress:
            progress("training", step + 1, recipe.steps, losses[-1])
    model.logit_scale.data.fill_(math.log(100))
    return losses


def _named(stream: _Stream) -> Tensor:
    """1 where a name or place word of `_WORDS` is true of a scene: (scenes, words)."""
    true = [{*a, *b} for a, b in zip(stream.tags, stream.surroundings, strict=True)]
    return torch.tensor([[float(word in words) for word in _WORDS] for words in true])


def _contrast_with_names(logits: Tensor, truth: Tensor) -> Tensor:
    """Cross-entropy against all right words at once, for classes and for places apart."""
    loss = logits.new_zeros(())
    for part in (slice(0, len(DEMO_CLASSES)), slice(len(DEMO_CLASSES), None)):
        right = truth[:, part] / truth[:, part].sum(1, keepdim=True).clamp_min(1)
        loss = loss - (right * logits[:, part].log_softmax(-1)).sum(1).mean()
    return loss


def _sort_patches(logits: Tensor, truth: Tensor) -> Tensor:
    """Learn from tags which patch shows what: nothing absent, and all that is present somewhere.

    Without it the patches of so small a model all say what the whole image says, and a CAM shows
    nothing. Names and place words compete for each patch.

    Args:
        logits: ``(batch, patches, words)``.
        truth: ``(batch, words)``, 1 for the words that are true of the image.
    """
    chances = logits.log_softmax(-1)
    absent = truth[:, None] == 0
    nothing_absent = -chances.masked_fill(absent, -math.inf).logsumexp(-1).mean()
    best = chances.exp().topk(max(1, logits.shape[1] // 14), dim=1).values.mean(1)
    somewhere = -(truth * best.clamp_min(1e-6).log()).sum() / truth.sum()
    return nothing_absent + somewhere


def _rate(done: float, warm_up: float) -> float:
    if done < warm_up:
        return (done + 1e-3) / (warm_up + 1e-3)
    return 0.5 * (1 + math.cos(math.pi * (done - warm_up) / (1 - warm_up))) * 0.99 + 0.01
