"""Makes the demo's CLIP from scratch, from drawn scenes, their tags and place words alone.

1. A convolutional teacher learns the words of each scene and says which cell shows which of them.
2. The image tower learns to say the same of its patches, through a linear head that is dropped
   later, while the text tower learns the words of what it gets to see.
3. Both towers learn together by open_clip's contrastive loss, taken twice: on the class token, as
   in CLIP, and on the mean of the projected patch tokens, because Grad-CAM scores that mean. Both
   are also contrasted with every class name and place word, several of which may be right: in a
   small batch of captions most names stand beside no image that lacks them. The teacher's cells
   stay.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tools.demo_clip.captions import TEMPLATES, caption
from tools.demo_clip.initial import start_image_tower
from tools.demo_clip.model import (
    PATCH,
    build,
    encode_patches,
    encode_text,
    normalise,
    save,
    tokenize,
)
from tools.demo_clip.schedule import rate_share
from tools.demo_clip.stream import WORDS, Crops, Order, Progress, Stream, draw_stream, recolour
from tools.demo_clip.teacher import TeacherRecipe, patch_targets, train_teacher
from wsss._compat import import_open_clip
from wsss.data.datasets.words import DEMO_NAMES

LAST_SIZES: Final = ((96, 96), (96, 128), (128, 96), (112, 112))
"""Heights and widths of the last steps, so that other grids than 12 x 12 are met as well."""

_PATCH_SCALE: Final = 30.0

Report = dict[str, float | int | list[float]]


@dataclass(frozen=True)
class Recipe:
    """Settings of the optimisation; `PROVENANCE.json` beside the shipped weights has theirs.

    Attributes:
        scenes: scenes drawn once and seen again with other crops, colours and captions.
        teacher: settings of the teacher.
        patch_steps: steps in which the image tower learns from the teacher alone.
        patch_batch: images in each of them.
        steps: steps of contrastive learning after those.
        batch: images in each of them.
        whole: share of the contrastive steps that see all patches. Others see a random half, which
            is twice as fast, as do the steps before.
        rate: highest learning rate.
        decay: weight decay of the matrices.
        warm_up: share of all steps in which the rate rises.
        threads: threads of torch; the weights' last bits depend on it.
    """

    scenes: int = 12000
    teacher: TeacherRecipe = field(default_factory=TeacherRecipe)
    patch_steps: int = 2000
    patch_batch: int = 32
    steps: int = 700
    batch: int = 64
    whole: float = 0.33
    rate: float = 1.2e-3
    decay: float = 0.05
    warm_up: float = 0.06
    threads: int = 2

    def scaled(self, effort: float) -> Recipe:
        """The same with ``effort`` times as many steps in every part, at least one each."""
        teacher = replace(self.teacher, steps=max(1, round(effort * self.teacher.steps)))
        patch_steps = max(1, round(effort * self.patch_steps))
        steps = max(1, round(effort * self.steps))
        return replace(self, teacher=teacher, patch_steps=patch_steps, steps=steps)


def pretrain(
    out: Path, *, seed: int = 0, recipe: Recipe | None = None, progress: Progress | None = None
) -> Report:
    """Train the demo's CLIP from scratch and write its weights to ``out`` (float16).

    Args:
        out: file to write, atomically.
        seed: of scenes, captions, crops and initial weights.
        recipe: settings.
        progress: called after each step, and now and then while scenes are drawn.

    Returns:
        Settings, minutes, and the mean loss of the first and of the last tenth of the contrastive
        steps.
    """
    recipe = recipe or Recipe()
    begun = time.monotonic()
    stream = draw_stream(seed, recipe.scenes, progress)
    torch.set_num_threads(recipe.threads)
    torch.manual_seed(seed)
    teacher = train_teacher(stream, recipe.teacher, seed, progress)
    lesson = _Lesson(stream, patch_targets(teacher, stream), recipe, seed)
    model = build(None).float().train().requires_grad_(True)
    start_image_tower(model)
    losses = _optimise(model, lesson, recipe, progress)
    save(model, out)
    tenth = max(1, len(losses) // 10)
    return {
        "seed": seed,
        "scenes": recipe.scenes,
        "teacher_steps": recipe.teacher.steps,
        "patch_steps": recipe.patch_steps,
        "steps": recipe.steps,
        "minutes": round((time.monotonic() - begun) / 60, 2),
        "loss_first": sum(losses[:tenth]) / tenth,
        "loss_last": sum(losses[-tenth:]) / tenth,
        "losses": losses,
    }


@dataclass(frozen=True)
class _Batch:
    chosen: Tensor  # (B,) scenes
    images: Tensor  # (B, 3, H, W), normalised
    targets: Tensor  # (B, N, words), what each seen patch shows
    keep: Tensor | None  # (B, N), the seen patches; None: all
    truth: Tensor  # (B, words)


class _Lesson:
    """Batches of crops, what their patches show, and sentences about them."""

    def __init__(self, stream: Stream, targets: Tensor, recipe: Recipe, seed: int) -> None:
        self._stream, self._targets, self._truth = stream, targets, stream.truth()
        self._generator = torch.Generator().manual_seed(seed)
        self._order = Order(len(stream.images), self._generator)
        self._words = np.random.default_rng(np.random.SeedSequence([seed, 77]))
        self._token_ids: dict[str, Tensor] = {}

    def batch(self, count: int, size: tuple[int, int], *, thin: bool) -> _Batch:
        chosen = self._order.take(count)
        crops = Crops.draw(count, self._generator)
        pixels = crops.of(self._stream.images[chosen], size, "reflection")
        grid = (size[0] // PATCH, size[1] // PATCH)
        # (B, words, rows, columns) -> (B, N, words)
        targets = crops.of(self._targets[chosen], grid).flatten(2).transpose(1, 2)
        keep = None
        if thin:
            patches = grid[0] * grid[1]
            keep = torch.rand(count, patches, generator=self._generator).argsort(dim=1)
            keep = keep[:, : patches // 2]
            targets = targets.gather(1, keep[..., None].expand(-1, -1, targets.shape[-1]))
        images = normalise(recolour(pixels, self._generator))
        return _Batch(chosen, images, targets, keep, self._truth[chosen])

    def sentences(self, chosen: Tensor) -> Tensor:
        """A true sentence about each scene, as tokens."""
        tags, places = self._stream.tags, self._stream.surroundings
        return self._tokens([caption(self._words, tags[k], places[k]) for k in chosen.tolist()])

    def names(self) -> Tensor:
        """All `WORDS` in one of the templates, as tokens."""
        template = TEMPLATES[int(self._words.integers(len(TEMPLATES)))]
        return self._tokens([template.format(word) for word in WORDS])

    def _tokens(self, texts: list[str]) -> Tensor:
        for text in texts:
            if text not in self._token_ids:
                self._token_ids[text] = tokenize([text])[0]
        return torch.stack([self._token_ids[text] for text in texts])


def _optimise(
    model: Any, lesson: _Lesson, recipe: Recipe, progress: Progress | None
) -> list[float]:
    model.logit_scale.requires_grad_(False)
    model.logit_scale.fill_(math.log(100))
    head = nn.Linear(model.visual.output_dim, len(WORDS))
    groups = [*_groups(model, recipe.decay), {"params": head.parameters(), "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=recipe.rate, betas=(0.9, 0.98))
    total = recipe.patch_steps + recipe.steps
    losses: list[float] = []
    for step in range(total):
        for group in optimiser.param_groups:
            group["lr"] = recipe.rate * rate_share(step / total, recipe.warm_up)
        if step < recipe.patch_steps:
            loss = _teach_patches(model, head, lesson, recipe)
        else:
            loss = _contrast(model, lesson, recipe, step - recipe.patch_steps)
            losses.append(float(loss.detach()))
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        if progress:
            progress("training the CLIP", step + 1, total, float(loss.detach()))
    return losses


def _groups(model: Any, decay: float) -> list[dict[str, Any]]:
    """Decay matrices only; embeddings of tokens that no caption has would fade to nothing."""
    named = [(n, p) for n, p in model.named_parameters() if n != "logit_scale"]
    matrices = [p for n, p in named if p.ndim >= 2 and "embedding" not in n]
    others = [p for n, p in named if p.ndim < 2 or "embedding" in n]
    return [{"params": matrices, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}]


def _teach_patches(model: Any, head: nn.Linear, lesson: _Lesson, recipe: Recipe) -> Tensor:
    batch = lesson.batch(recipe.patch_batch, (96, 96), thin=True)
    tokens, values = encode_patches(model, batch.images, batch.keep)
    loss = F.binary_cross_entropy_with_logits(head(tokens[:, 0]), batch.truth)
    names = encode_text(model, lesson.names())
    for each in (tokens[:, 1:], values):
        loss = loss + _cross_entropy(head(each), batch.targets)
        # The text tower follows without pulling at the patches: unit vectors at this scale would.
        unit = F.normalize(each.detach(), dim=-1)
        loss = loss + _cross_entropy(_PATCH_SCALE * unit @ names.T, batch.targets)
    return loss


def _contrast(model: Any, lesson: _Lesson, recipe: Recipe, step: int) -> Tensor:
    thin = step < (1 - recipe.whole) * recipe.steps
    size = (96, 96) if thin else LAST_SIZES[step % len(LAST_SIZES)]
    batch = lesson.batch(recipe.batch, size, thin=thin)
    tokens, values = encode_patches(model, batch.images, batch.keep)
    sentences = encode_text(model, lesson.sentences(batch.chosen))
    names = encode_text(model, lesson.names())
    scale = model.logit_scale.exp()
    contrast = import_open_clip().loss.ClipLoss()
    loss = tokens.new_zeros(())
    for feature in (tokens[:, 0], tokens[:, 1:].mean(dim=1)):
        unit = F.normalize(feature, dim=-1)
        loss = loss + contrast(unit, sentences, scale)
        loss = loss + _contrast_with_names(scale * unit @ names.T, batch.truth)
    for each in (tokens[:, 1:], values):
        logits = _PATCH_SCALE * F.normalize(each, dim=-1) @ names.T  # (B, N, words)
        loss = loss + _cross_entropy(logits, batch.targets)
    return loss


def _cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Against shares of all words; both ``(batch, patches, words)``."""
    return -(targets * logits.log_softmax(-1)).sum(-1).mean()


def _contrast_with_names(logits: Tensor, truth: Tensor) -> Tensor:
    """Cross-entropy against all right words at once, for classes and for places apart."""
    loss = logits.new_zeros(())
    for part in (slice(0, len(DEMO_NAMES)), slice(len(DEMO_NAMES), None)):
        right = truth[:, part] / truth[:, part].sum(1, keepdim=True).clamp_min(1)
        loss = loss - (right * logits[:, part].log_softmax(-1)).sum(1).mean()
    return loss
