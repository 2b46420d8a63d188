"""The two towers of a CLIP as modules with gradients: learnable prompts, and training of CLIP.

`wsss.clip.encoder` is the frozen image encoder for everything else; here the blocks are open_clip's
modules, so that autograd sees their parameters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from wsss._compat import import_open_clip
from wsss._compat.outline import outlines
from wsss.clip.errors import UnsupportedEncoderError
from wsss.clip.position import resize_positions

_EXPECTED_TEXT = (
    "refine.method weakclip learns prompts of a causal one that is read at its end token, as that "
    "of ViT-B-16-quickgelu, ViT-L-14-quickgelu or EVA-CLIP"
)


def check_text_config(config: Mapping[str, Any], where: str) -> None:
    """Refuse a model whose text tower learnable prompts cannot enter (`TextTower`).

    Args:
        config: keyword arguments of open_clip's model.
        where: its source, for messages.

    Raises:
        UnsupportedEncoderError: the tower does not read its result at the end token.
    """
    text = config["text_cfg"]
    if name := text.get("hf_model_name"):
        raise UnsupportedEncoderError(f"{where}: the text tower is {name}; {_EXPECTED_TEXT}")
    with outlines():
        built = import_open_clip().model._build_text_tower(
            config["embed_dim"], dict(text), bool(config.get("quick_gelu", False))
        )
    try:
        _check_text(built)
    except UnsupportedEncoderError as error:
        raise UnsupportedEncoderError(f"{where}: {error}") from None


def _check_text(text: nn.Module) -> None:
    if difference := _difference(text):
        raise UnsupportedEncoderError(difference)


def _difference(text: nn.Module) -> str:
    """What `TextTower` cannot compute of a text tower; empty: it computes the same."""
    pooling = getattr(text, "text_pool_type", getattr(text, "pool_type", None))
    mask = getattr(text, "attn_mask", None)
    if pooling != "argmax" or mask is None or getattr(text, "cls_emb", None) is not None:
        return f"the text tower is {type(text).__name__} with pooling {pooling!r}; {_EXPECTED_TEXT}"
    if not isinstance(getattr(text, "text_projection", None), nn.Parameter):
        return "the text tower has no plain projection"
    return ""


def reads_end_token(model: nn.Module) -> bool:
    """Whether `TextTower` computes the text features of a CLIP: nothing after an end matters.

    Args:
        model: open_clip's CLIP or CustomTextCLIP.
    """
    return not _difference(getattr(model, "text", model))


class TextTower(nn.Module):
    """The text tower, from token embeddings on.

    Args:
        model: open_clip's CLIP or CustomTextCLIP; its parameters are shared, not copied.
        length: of the longest sequence; the positional table is cut to it.

    Raises:
        UnsupportedEncoderError: the tower does not read its result at the end token (CoCa, SigLIP,
            Hugging Face …).
        ValueError: the tower has fewer positions.
    """

    def __init__(self, model: nn.Module, length: int) -> None:
        super().__init__()
        text: Any = getattr(model, "text", model)
        _check_text(text)
        table = text.get_parameter("positional_embedding")
        if length > len(table):
            raise ValueError(
                f"a text of {length} tokens: the text tower has {len(table)} positions"
            )
        self.embedding = text.get_submodule("token_embedding")
        self.positions = nn.Parameter(table.detach()[:length].clone(), table.requires_grad)
        self.transformer = text.get_submodule("transformer")
        self.norm = text.get_submodule("ln_final")
        self.projection = text.get_parameter("text_projection")
        self.register_buffer("mask", text.attn_mask[:length, :length].clone(), persistent=False)

    def forward(
        self, embedded: Float[Tensor, "texts length width"], ends: Int[Tensor, " texts"]
    ) -> Float[Tensor, "texts embed_dim"]:
        """Features of texts, not scaled to unit length.

        Args:
            embedded: of the tokens, without positions.
            ends: index of each text's end token.
        """
        length = embedded.shape[1]
        tokens = embedded + self.positions[:length]
        mask = self.get_buffer("mask")[:length, :length]
        tokens = self.norm(self.transformer(tokens, attn_mask=mask))
        at_end = tokens[torch.arange(len(tokens), device=tokens.device), ends]
        return at_end @ self.projection

    def recompute(self) -> None:
        """As `ImageBlocks.recompute`."""
        cast(Any, self.transformer).grad_checkpointing = True  # open_clip's own switch


def short_texts(tokens: Int[Tensor, "texts context"]) -> Int[Tensor, "texts short"]:
    """Cut padding that no text needs: attention is causal, so nothing after an end matters."""
    return tokens[:, : int(tokens.argmax(1).max()) + 1]


class ImageBlocks(nn.Module):
    """The image tower with gradients, up to its last block.

    Args:
        visual: open_clip's plain `VisionTransformer`; its parameters are shared, not copied.
        grid: the positional table is resized to these rows and columns first, and from there to the
            grid of each image.
        class_token: factor of the class embedding.
        drop_path: share of samples for which the last block's branches are dropped in training; it
            rises linearly from 0 at the first block.

    Raises:
        UnsupportedEncoderError: the tower is of another family (EVA, SigLIP).
    """

    def __init__(
        self,
        visual: nn.Module,
        grid: tuple[int, int],
        *,
        class_token: int = 1,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        if not hasattr(visual, "class_embedding"):
            raise UnsupportedEncoderError(
                f"the image tower is {type(visual).__name__}; with gradients only open_clip's "
                "VisionTransformer runs here, e.g. ViT-B-16-quickgelu or ViT-L-14-quickgelu"
            )
        self.patches = visual.get_submodule("conv1")
        self.class_embedding = visual.get_parameter("class_embedding")
        native = visual.grid_size
        assert isinstance(native, tuple)
        table = visual.get_parameter("positional_embedding")
        resized = resize_positions(table.detach(), (native[0], native[1]), grid)
        self.positions = nn.Parameter(resized, table.requires_grad)
        self.first_norm = visual.get_submodule("ln_pre")
        self.blocks = visual.get_submodule("transformer").get_submodule("resblocks")
        self._grid, self._class_token = grid, class_token
        self._recomputes = False
        count = len(list(self.blocks.children()))
        self._drop = [drop_path * k / max(1, count - 1) for k in range(count)]

    def forward(
        self, images: Float[Tensor, "batch 3 rows columns"], out_indices: Sequence[int]
    ) -> tuple[list[Float[Tensor, "batch tokens width"]], Float[Tensor, "batch tokens _"]]:
        """Outputs of the blocks in ``out_indices``, and the output of the last block.

        Args:
            images: normalised; sides are multiples of the patch.
            out_indices: 0-based blocks, ascending.
        """
        patches = self.patches(images)
        grid = (patches.shape[2], patches.shape[3])
        patches = patches.flatten(2).transpose(1, 2)  # (B, D, h, w) -> (B, h w, D)
        cls = (self._class_token * self.class_embedding).expand(len(images), 1, -1)
        positions = resize_positions(self.positions, self._grid, grid)
        tokens = self.first_norm(torch.cat([cls, patches], dim=1) + positions)
        outputs = []
        blocks = zip(self.blocks.children(), self._drop, strict=True)
        for index, (block, drop) in enumerate(blocks):
            if self._recomputes:
                tokens = checkpoint(self._block, block, tokens, drop, use_reentrant=False)
            else:
                tokens = self._block(block, tokens, drop)
            if index in out_indices:
                outputs.append(tokens)
        return outputs, tokens

    def recompute(self) -> None:
        """Compute blocks again in the backward pass, instead of keeping what is inside of them.

        Gradients stay equal. A step takes longer, since the blocks run forward twice.
        """
        self._recomputes = True

    def _block(
        self, block: nn.Module, tokens: Float[Tensor, "batch tokens width"], drop: float
    ) -> Float[Tensor, "batch tokens width"]:
        parts = cast(Any, block)  # open_clip's residual block
        tokens = tokens + self._branch(parts.ls_1(parts.attention(parts.ln_1(tokens))), drop)
        return tokens + self._branch(parts.ls_2(parts.mlp(parts.ln_2(tokens))), drop)

    def _branch(
        self, update: Float[Tensor, "batch tokens width"], drop: float
    ) -> Float[Tensor, "batch tokens width"]:
        """Stochastic depth: drop the branch of some samples and scale up the others."""
        if not self.training or drop == 0:
            return update
        mask = (torch.rand(len(update), 1, 1, device=update.device) >= drop).to(update.dtype)
        return update * (mask / (1 - drop))


class ImageTower(ImageBlocks):
    """The image tower with gradients, as DenseCLIP and WeakCLIP train it.

    Eq. 5-7 of docs/methods/weakclip.md. Published: the positional table is resized to the grid of
    the training crop first, and ``class_token`` is 2.

    Args:
        visual: as for `ImageBlocks`, and so are the others.
    """

    def __init__(self, visual: nn.Module, grid: tuple[int, int], **rest: Any) -> None:
        super().__init__(visual, grid, **rest)
        self.last_norm = visual.get_submodule("ln_post")
        self.projection = visual.get_parameter("proj")

    def forward(
        self, images: Float[Tensor, "batch 3 rows columns"], out_indices: Sequence[int]
    ) -> tuple[list[Float[Tensor, "batch tokens width"]], Float[Tensor, "batch tokens embed_dim"]]:
        """Outputs of the blocks in ``out_indices``, and all tokens after final norm and projection.

        Args:
            images: normalised; sides are multiples of the patch.
            out_indices: 0-based blocks, ascending.
        """
        outputs, tokens = super().forward(images, out_indices)
        return outputs, self.last_norm(tokens) @ self.projection
