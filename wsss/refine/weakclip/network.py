"""WeakCLIP's network: the two towers of CLIP and what is trained on top.

Eq. 3-16 of docs/methods/weakclip.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from wsss.clip.encoder import ClipEncoder
from wsss.clip.load import LoadedClip
from wsss.clip.text.prompts import LearnablePrompt
from wsss.clip.towers import ImageTower, TextTower, short_texts
from wsss.refine.training.trainer import Group
from wsss.refine.weakclip.adapter import PyramidAdapter
from wsss.refine.weakclip.co_attention import CoAttention, TextMatching
from wsss.refine.weakclip.decoder import TextGuidedDecoder
from wsss.refine.weakclip.options import WeakClipOptions

_OUT_INDICES = (1 / 3, 1 / 2, 2 / 3, 1.0)


@dataclass(frozen=True)
class ImageFeatures:
    """Outputs of the image tower for a batch of images."""

    maps: list[Float[Tensor, "batch channels rows columns"]]
    """Patch tokens after four blocks, as maps, before the final norm."""
    visual: Float[Tensor, "batch tokens embed_dim"]
    """All tokens after the final norm and the projection; the class token first."""
    grid: tuple[int, int]


class WeakClipHead(nn.Module):
    """Prompt, pyramid adapter, co-attention matching and text-guided decoder.

    Args:
        width: of a token of the image tower.
        embed_dim: width of the joint space of images and texts.
        labels: classes and the background.
    """

    def __init__(
        self, width: int, embed_dim: int, text_width: int, labels: int, settings: WeakClipOptions
    ) -> None:
        super().__init__()
        self.prompt = LearnablePrompt(settings.prompts, text_width, settings.prompt_std)
        self.adapter = PyramidAdapter(width)
        attention = CoAttention(
            embed_dim,
            settings.width,
            heads=settings.heads,
            depth=settings.depth,
            dropout=settings.dropout,
            chained=settings.co_attention == "chained",
        )
        self.matching = TextMatching(attention, embed_dim, settings.temperature)
        self.decoder = TextGuidedDecoder(width, labels, settings.channels, dropout=settings.dropout)

    def forward(
        self, features: ImageFeatures, texts: Float[Tensor, "labels embed_dim"]
    ) -> tuple[
        Float[Tensor, "batch labels rows columns"], Float[Tensor, "batch labels height across"]
    ]:
        """The match map lambda' on the patch grid, and logits at four times its size."""
        match = self.matching(texts, features.visual, features.grid)
        return match, self.decoder(self.adapter(features.maps), match)


class WeakClipNetwork:
    """Towers and head; `trained` is the module of all that learns.

    Args:
        encoder: its image tower in the form that does without gradients.
        names: the texts, that of the background first.
        crop: side of a training crop, pixels.
        tokens: token ids of the names; None lets the model's tokenizer make them.

    Raises:
        ValueError: the encoder has fewer blocks than the settings name.
        UnsupportedEncoderError: prompts cannot enter its text tower, or its image tower is to run
            with gradients and cannot.
    """

    def __init__(
        self,
        clip: LoadedClip,
        encoder: ClipEncoder,
        names: Sequence[str],
        settings: WeakClipOptions,
        crop: int,
        tokens: Int[Tensor, "labels context"] | None = None,
    ) -> None:
        self.settings = settings
        self._encoder = encoder
        tokens = clip.tokenize(list(names)) if tokens is None else tokens
        self._tokens = short_texts(tokens).to(encoder.device)
        self.text = TextTower(clip.model, settings.prompts + self._tokens.shape[1])
        self.text.requires_grad_(settings.trains_clip).to(encoder.device)
        default = [round(fraction * encoder.depth) for fraction in _OUT_INDICES]
        self._out_indices = settings.out_indices or default
        if self._out_indices[-1] > encoder.depth:
            raise ValueError(
                f"refine.weakclip.out_indices is {self._out_indices}, but the encoder has "
                f"{encoder.depth} blocks; lower them"
            )
        grid = (crop // encoder.patch[0], crop // encoder.patch[1])
        self.image: ImageTower | None = None
        class_token = 2 if settings.class_token == "twice" else 1
        if settings.trains_clip or settings.drop_path:
            self.image = ImageTower(
                clip.model.get_submodule("visual"),
                grid if settings.positions == "twice" else encoder.native_grid,
                class_token=class_token,
                drop_path=settings.drop_path,
            )
            self.image.requires_grad_(settings.trains_clip).to(encoder.device)
        else:
            self._encoder = encoder.adapted(
                grid=grid if settings.positions == "twice" else None, class_token=class_token
            )
        self.head = WeakClipHead(
            encoder.width, clip.embed_dim, self.text.positions.shape[1], len(names), settings
        ).to(encoder.device)
        towers: dict[str, nn.Module] = {"text": self.text, "head": self.head}
        if self.image is not None:
            towers["image"] = self.image
        self._modules = nn.ModuleDict(towers)
        self._recomputes = False
        self.trained: nn.Module = self._modules if settings.trains_clip else self.head

    def train(self, mode: bool = True) -> None:
        """Set training or evaluation mode, that of a frozen tower with stochastic depth as well."""
        self._modules.train(mode)

    def recompute(self) -> bool:
        """Keep only the outputs of the towers' blocks for the backward pass.

        Returns:
            Whether this is new.
        """
        if self._recomputes:
            return False
        self._recomputes = True
        self.text.recompute()
        if self.image is not None and self.settings.trains_clip:
            self.image.recompute()
        return True

    def groups(self) -> list[Group]:
        """Parameters with their learning rates, relative to the configured one."""
        settings = self.settings
        adapter = list(self.head.adapter.parameters())
        rest = _without(self.head.parameters(), adapter)
        groups = [Group(rest, 1.0)]
        if settings.adapter_lr or settings.zero_lr == "leak":
            groups.append(Group(adapter, settings.adapter_lr))
        if self.settings.trains_clip:
            groups.append(
                Group(_without(self._modules.parameters(), [*adapter, *rest]), settings.clip_lr)
            )
        return groups

    def texts(self) -> Float[Tensor, "labels embed_dim"]:
        """Features t_p of all labels."""
        return self.head.prompt(self.text, self._tokens)

    def encode(self, images: Float[Tensor, "batch 3 height width"]) -> ImageFeatures:
        """Run the image tower, with a graph only if it is trained."""
        grid = (
            images.shape[2] // self._encoder.patch[0],
            images.shape[3] // self._encoder.patch[1],
        )
        blocks = [index - 1 for index in self._out_indices]
        if self.image is None:
            encoding = self._encoder.run(images, outputs_of=blocks)
            outputs = [encoding.outputs[block] for block in blocks]
            visual = self._encoder.project(self._encoder.normalize(encoding.tokens))
        else:
            with torch.set_grad_enabled(self.settings.trains_clip and torch.is_grad_enabled()):
                outputs, visual = self.image(images, blocks)
        # (B, 1 + h w, D) -> (B, h w, D) -> (B, D, h, w). Contiguous, since the backward pass of
        # group norm crashes on a CPU where the channels come last (torch 2.13).
        maps = [tokens[:, 1:].transpose(1, 2).unflatten(2, grid).contiguous() for tokens in outputs]
        return ImageFeatures(maps, visual, grid)

    def parameter_counts(self) -> tuple[int, int]:
        """Parameters that are trained on top of CLIP, and all that a forward pass uses.

        The released recipe counts CLIP as frozen, whatever its schedule does to it.
        """
        trained = sum(parameter.numel() for parameter in self.head.parameters())
        text = sum(parameter.numel() for parameter in self.text.parameters())
        image = (
            self._encoder.parameter_count
            if self.image is None
            else sum(parameter.numel() for parameter in self.image.parameters())
        )
        return trained, trained + text + image


def _without(
    parameters: Iterable[nn.Parameter], others: Iterable[nn.Parameter]
) -> list[nn.Parameter]:
    excluded = {id(parameter) for parameter in others}
    return [parameter for parameter in parameters if id(parameter) not in excluded]
