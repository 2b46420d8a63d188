"""A learnable prompt: vectors in front of class names, through the text tower (WeakCLIP).

Eq. 3 and 4 of docs/methods/weakclip.md.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from wsss.clip.towers import TextTower


class LearnablePrompt(nn.Module):
    """Vectors that all texts share, between the start token and the name.

    Args:
        count: number of vectors; 0 leaves the texts as they are.
        std: deviation of the normal distribution, cut at two, from which they are drawn.
    """

    def __init__(self, count: int, width: int, std: float) -> None:
        super().__init__()
        self.contexts = nn.Parameter(torch.empty(count, width))
        nn.init.trunc_normal_(self.contexts, std=std)

    def forward(
        self, tower: TextTower, tokens: Int[Tensor, "texts context"]
    ) -> Float[Tensor, "texts embed_dim"]:
        """Features t_p, not scaled to unit length.

        Args:
            tower: of at least as many positions as vectors and tokens together.
            tokens: start token, name, end token (the largest id), padding.
        """
        embedded = tower.embedding(tokens)
        contexts = self.contexts.expand(len(tokens), -1, -1)  # (n, d) -> (K, n, d)
        prompted = torch.cat([embedded[:, :1], contexts, embedded[:, 1:]], dim=1)
        return tower(prompted, tokens.argmax(1) + len(self.contexts))
