"""The demo's CLIP: built from its config, loaded, saved, and run at any size that patches fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, cast

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

import wsss
from wsss._compat import import_open_clip
from wsss.artifacts.atomic import atomic_path

MODEL_NAME: Final = "demo-vit-p8"
CONFIG: Final = Path(wsss.__file__).parent / "demo" / "weights" / f"{MODEL_NAME}.json"
WEIGHTS: Final = CONFIG.with_suffix(".safetensors")
PATCH: Final = 8
"""Side of a patch in pixels, as the config says; the teacher's cells are of the same size."""


def build(weights: Path | None = WEIGHTS) -> Any:
    """Return the open_clip model, with ``weights`` or (``None``) initialised from torch's seed.

    Raises:
        FileNotFoundError: if there is no such file of weights.
    """
    if weights is not None and not weights.is_file():
        command = "python -m tools.demo_clip pretrain"
        raise FileNotFoundError(f"no weights at {weights}; `{command}` makes them")
    open_clip = import_open_clip()
    if MODEL_NAME not in open_clip.list_models():
        open_clip.add_model_config(CONFIG)
    if weights is None:
        config = open_clip.get_model_config(MODEL_NAME)
        return open_clip.CLIP(**config)
    return open_clip.create_model(MODEL_NAME, pretrained=str(weights)).eval()


def tokenize(texts: list[str]) -> Tensor:
    """Return token ids ``(texts, 77)`` by CLIP's byte-pair tokenizer."""
    return cast(Tensor, import_open_clip().tokenize(texts))


def save(model: Any, path: Path) -> None:
    """Write the weights in float16 to ``path``, atomically."""
    state = {
        name: tensor.detach().half().contiguous() for name, tensor in model.state_dict().items()
    }
    state["logit_scale"] = model.logit_scale.detach().float()  # half would make 100 to 100.03
    with atomic_path(path) as temporary:
        save_file(state, temporary, metadata={"format": "pt"})


def normalise(images: Tensor) -> Tensor:
    """Return ``images`` (0..255, batch x 3 x height x width) with CLIP's mean and deviation."""
    constants = import_open_clip().constants
    mean = torch.tensor(constants.OPENAI_DATASET_MEAN).view(1, 3, 1, 1)
    deviation = torch.tensor(constants.OPENAI_DATASET_STD).view(1, 3, 1, 1)
    return (images.float() / 255 - mean) / deviation


def encode_image(model: Any, images: Tensor, keep: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Encode images whose sides are multiples of the patch; see `encode_patches`.

    Returns:
        Two ``(batch, embed_dim)`` unit vectors: of the class token, and of the mean of the
        projected patch tokens (what Grad-CAM scores).
    """
    tokens, _ = encode_patches(model, images, keep)
    return F.normalize(tokens[:, 0], dim=-1), F.normalize(tokens[:, 1:].mean(dim=1), dim=-1)


def encode_patches(model: Any, images: Tensor, keep: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Encode images token by token; positions are interpolated.

    Args:
        model: from `build`.
        images: normalised, ``(batch, 3, height, width)``.
        keep: ``(batch, seen)`` indices of the patches to see; all of them if ``None``.

    Returns:
        Projected tokens ``(batch, 1 + patches, embed_dim)``, the class token first, and what each
        patch hands on through the values of the last block ``(batch, patches, embed_dim)``, by
        which Grad-CAM in that block tells patches apart; neither is normalised.
    """
    visual = model.visual
    tokens = visual.conv1(images)
    rows, columns = tokens.shape[-2:]
    table = visual.positional_embedding
    side = round((len(table) - 1) ** 0.5)
    grid = table[1:].T.reshape(1, -1, side, side)
    if (rows, columns) != (side, side):
        grid = F.interpolate(grid, (rows, columns), mode="bilinear", align_corners=False)
    tokens = (tokens + grid).flatten(2).transpose(1, 2)  # batch, patches, width
    if keep is not None:
        tokens = tokens.gather(1, keep[..., None].expand(-1, -1, tokens.shape[-1]))
    first = (visual.class_embedding + table[0]).expand(len(tokens), 1, -1)
    tokens = visual.ln_pre(torch.cat([first, tokens], dim=1))
    for block in visual.transformer.resblocks[:-1]:
        tokens = block(tokens)
    last = visual.transformer.resblocks[-1]
    weight, bias = last.attn.in_proj_weight.chunk(3)[2], last.attn.in_proj_bias.chunk(3)[2]
    handed_on = last.attn.out_proj(F.linear(last.ln_1(tokens[:, 1:]), weight, bias))
    values = visual.ln_post(handed_on) @ visual.proj
    return visual.ln_post(last(tokens)) @ visual.proj, values


def encode_text(model: Any, tokens: Tensor) -> Tensor:
    """Return unit vectors ``(texts, embed_dim)``; equals open_clip's, without the padding's cost.

    Attention is causal and the vector is read at the end token, so what follows it cannot matter.
    """
    end = tokens.argmax(dim=-1)
    length = int(end.max()) + 1
    states = model.token_embedding(tokens[:, :length]) + model.positional_embedding[:length]
    states = model.transformer(states, attn_mask=model.attn_mask[:length, :length])
    states = model.ln_final(states)[torch.arange(len(tokens)), end]
    return F.normalize(states @ model.text_projection, dim=-1)
