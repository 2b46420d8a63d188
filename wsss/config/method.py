"""What a refinement method declares: its options, and facts that other stages read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal, Protocol, runtime_checkable

from wsss.config.base import Section
from wsss.config.cams import CamsConfig
from wsss.config.infer import InferConfig
from wsss.config.labels import SeedsConfig


@runtime_checkable
class Chain(Protocol):
    """The sections that a method may check its options against; a `Config` has them."""

    @property
    def cams(self) -> CamsConfig: ...
    @property
    def seeds(self) -> SeedsConfig: ...
    @property
    def infer(self) -> InferConfig: ...


EncoderNeed = Literal["patches_and_texts", "linear_attention", "prompts", "gradients"]
"""What a method asks of CLIP beyond features and attention.

patches_and_texts: patches in the space of the texts. linear_attention: blocks that add a linear map
of what their heads attend to. prompts: a text tower that learnable prompts can enter. gradients: an
image tower that runs with gradients.
"""


class MethodOptions(Section):
    """Options of one method, ``wsss/refine/<method>/options.py``; `wsss.refine.registry` lists all.

    The fields are the keys of the section ``refine.<method>``; the class variables are facts.
    """

    title: ClassVar[str]
    """The method's name in tables and figures."""
    needs_seeds: ClassVar[bool] = False
    """Whether it learns from hard labels, which the stage seeds makes, instead of CAMs."""
    refines_cams: ClassVar[bool] = False
    """Whether it spreads CAMs between patches, with ``cams.affinity``, while it learns or after."""
    released: ClassVar[bool] = False
    """Whether its authors released weights that ``wsss.refine.<method>.released`` can read."""
    windows: ClassVar[bool] = False
    """Whether it predicts large images in windows, as ``infer.window`` says."""
    encoders: ClassVar[tuple[str, ...]] = ()
    """Frozen encoders besides CLIP: rooms ``wsss.<name>`` with a section of that name."""
    published_normalization: ClassVar[Literal["clip", "imagenet"]] = "clip"
    """How the authors' code normalises the images."""

    @property
    def repeated(self) -> str:
        """VOC: the list of images that come twice per epoch (``repeat_list``); empty: none."""
        return str(getattr(self, "repeat_list", ""))

    @property
    def encoder_needs(self) -> frozenset[EncoderNeed]:
        """What the encoder must have, so that `config check` can refuse others."""
        return frozenset()

    @property
    def encoder_blocks(self) -> Mapping[str, int | None]:
        """Numbers of CLIP's blocks by option, which are compared with the encoder before a run."""
        return {}

    def cross_checks(self, config: Chain) -> list[str]:
        """Contradictions within the options or to other sections, one sentence each."""
        return []
