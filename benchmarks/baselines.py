"""What the CAM stage is compared with: the bare encoder, and a straightforward CLIP-ES."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from wsss.cams.boxes import box_masks
from wsss.cams.maps import scale_maps
from wsss.clip.encoder import ClipEncoder
from wsss.clip.position import resize_positions
from wsss.clip.text.embeddings import TextBank
from wsss.compute.threads import one_thread_each, ordered_map


def bare_encoders(model: Any, images: Sequence[Tensor]) -> dict[str, Callable[[], object]]:
    """Forward passes over the same images that do nothing else, in several ways."""
    visual = copy.deepcopy(model.visual)
    grid = tuple(s // p for s, p in zip(images[0].shape[-2:], visual.patch_size, strict=True))
    table = resize_positions(visual.positional_embedding, visual.grid_size, grid)
    visual.positional_embedding = torch.nn.Parameter(table, requires_grad=False)
    encode = torch.no_grad()(visual)
    ours = ClipEncoder(model.visual)
    batch = torch.cat(list(images))
    return {
        "open_clip, one image at a time": lambda: [encode(image) for image in images],
        "open_clip, one image per thread": lambda: _in_threads(encode, images),
        "open_clip, one batch": lambda: encode(batch),
        "wsss encoder, one image per thread": lambda: _in_threads(ours.run, images),
    }


def _in_threads(encode: Callable[[Tensor], object], images: Sequence[Tensor]) -> None:
    with one_thread_each() as threads:
        list(ordered_map(encode, images, threads=threads))


def simple_cams(
    model: Any, image: Tensor, tags: Sequence[int], bank: TextBank, *, weight_gradients: bool
) -> Tensor:
    """Propagated maps of one image, class by class (eq. 5-19 of docs/methods/clip-es.md).

    Args:
        model: an open_clip model.
        image: normalised, (1, 3, height, width).
        tags: the image's classes.
        bank: text features.
        weight_gradients: also form the gradients of the last block's weights, as the published
            code does because it never freezes them.
    """
    visual, scale = model.visual, model.logit_scale.exp()
    texts = torch.cat([bank.classes[list(tags)], bank.backgrounds])
    grid = [side // patch for side, patch in zip(image.shape[-2:], visual.patch_size, strict=True)]
    last = visual.transformer.resblocks[-1].requires_grad_(weight_gradients)
    tokens, attentions = _first_blocks(visual, image)
    results = []
    for k, _ in enumerate(tags):
        normed = last.ln_1(tokens).detach().requires_grad_()
        attended, attention = last.attn(normed, normed, normed, need_weights=True)
        after = tokens + attended
        after = after + last.mlp(last.ln_2(after))
        feature = F.normalize(visual.ln_post(after)[:, 1:].mean(1) @ visual.proj, dim=-1)
        probability = (scale * feature @ texts.T).softmax(-1)[0, k]
        weights = [p for p in last.parameters() if p.requires_grad]
        gradient = torch.autograd.grad(probability, [normed, *weights], allow_unused=True)[0]
        cam = (normed[0, 1:].detach() @ gradient[0, 1:].mean(0)).relu().view(1, *grid)
        cam = scale_maps(cam, "guarded_twice")
        D = torch.stack([*attentions[-7:], attention[0].detach()]).mean(0)[1:, 1:]
        for _ in range(3):
            D = D / D.sum(0, keepdim=True)
            D = D / D.sum(1, keepdim=True)
        S = (D + D.T) / 2
        gate = box_masks(cam, 0.4, "exclusive").flatten().float()
        propagated = (S @ S * gate) @ cam.flatten()
        results.append(scale_maps(propagated.view(1, *grid), "guarded_twice"))
    last.requires_grad_(False)
    return torch.cat(results)


@torch.no_grad()
def _first_blocks(visual: Any, image: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Tokens before the last block, and the head-mean attention of every block before it."""
    patches = visual.conv1(image)
    grid = (patches.shape[2], patches.shape[3])
    patches = patches.flatten(2).transpose(1, 2)
    cls = visual.class_embedding.expand(1, 1, -1)
    table = resize_positions(visual.positional_embedding, visual.grid_size, grid)
    tokens = visual.ln_pre(torch.cat([cls, patches], dim=1) + table)
    attentions = []
    for block in visual.transformer.resblocks[:-1]:
        normed = block.ln_1(tokens)
        attended, attention = block.attn(normed, normed, normed, need_weights=True)
        tokens = tokens + attended
        tokens = tokens + block.mlp(block.ln_2(tokens))
        attentions.append(attention[0])
    return tokens, attentions
