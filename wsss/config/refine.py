"""Sections on the refiner: which method, its options, its training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

from pydantic import Field, PositiveInt, create_model

from wsss.config.base import TRAINING_THREADS, Section, Share
from wsss.config.cams import CamsConfig
from wsss.config.method import MethodOptions
from wsss.refine.registry import METHODS, method_encoders

_Options = TypeVar("_Options", bound=MethodOptions)


class TrainingConfig(Section):
    """Training of a refiner: crops, AdamW, linear warm-up, decay."""

    iterations: PositiveInt = Field(2000, description="Training steps.")
    batch: PositiveInt = Field(4, description="Crops per step.")
    crop: PositiveInt = Field(
        320, description="Side of the square training crop, a multiple of the patch, pixels."
    )
    short_side: PositiveInt | None = Field(
        None, description="Scale images to this short side first. null = their own size."
    )
    scale_range: tuple[float, float] = Field((0.5, 2.0), description="Random scale on top of that.")
    cat_max_ratio: Share = Field(
        1.0,
        description=(
            "Draw a crop again, up to nine times, while one label covers a larger share of its "
            "labelled pixels (methods that learn from hard labels). 1 = accept every crop."
        ),
    )
    photometric: bool = Field(False, description="Random brightness, contrast, saturation and hue.")
    lr: float = Field(2e-3, gt=0, description="Peak learning rate.")
    weight_decay: float = Field(0.01, ge=0, description="Weight decay of AdamW.")
    warmup: int = Field(50, ge=0, description="Steps of linear warm-up.")
    schedule: Literal["poly", "cosine"] = Field(
        "poly", description="Decay of the learning rate: polynomial to 0, or cosine to min_lr."
    )
    power: float = Field(1.0, ge=0, description="Exponent of the polynomial decay.")
    min_lr: float = Field(0.0, ge=0, description="Learning rate at the end of the cosine.")
    threads: PositiveInt = Field(2, le=1024, description=TRAINING_THREADS)
    checkpoint_every: PositiveInt = Field(500, description="Steps between resumable states.")
    snapshots_every: PositiveInt | None = Field(
        None,
        description=(
            "Steps between checkpoints that are kept, from step 0 to the last, so that `wsss "
            "score-labels` can score the labels of these steps. null = none."
        ),
    )

    def crop_problem(self, patch: tuple[int, int]) -> str:
        """What is wrong where patches do not fill the crop, and what fits; empty where they do.

        Args:
            patch: height and width of the encoder's patch, pixels.
        """
        if self.crop % patch[0] == 0 and patch[0] == patch[1]:
            return ""
        below = self.crop // patch[0] * patch[0]
        near = f"{below} or {below + patch[0]}" if below else patch[0]
        return (
            f"refine.train.crop is {self.crop}; expected a multiple of the encoder's patch "
            f"({patch[0]} x {patch[1]} pixels), e.g. {near}"
        )


class RefineConfig(Section):
    """The refiner, trained on the CAMs."""

    method: str = "none"
    checkpoint: str | None = Field(
        None,
        min_length=1,
        description=(
            "Do not train, but import this checkpoint (.pth, .safetensors): of the released code "
            f"of {' or '.join(name for name, options in METHODS.items() if options.released)}, "
            "or of an earlier run. null = train."
        ),
    )
    train: TrainingConfig = TrainingConfig()

    def effective(self) -> dict[str, Any]:
        """Without the options of the methods that are not configured."""
        return self.model_dump(mode="json", exclude=set(METHODS) - {self.method})

    @property
    def options(self) -> MethodOptions:
        """The section of the configured method, which is not ``none``."""
        return cast(MethodOptions, getattr(self, self.method))

    def section(self, options: type[_Options]) -> _Options:
        """The section of one method, by the class of its options."""
        name = next(name for name, kind in METHODS.items() if kind is options)
        return cast(_Options, getattr(self, name))

    @property
    def is_trained(self) -> bool:
        """Whether the method is trained, here or elsewhere; it then also predicts all labels."""
        return self.method != "none"

    @property
    def trains(self) -> bool:
        """Whether this run trains it."""
        return self.is_trained and self.checkpoint is None

    def other_encoders(self, cams: CamsConfig) -> tuple[str, ...]:
        """Frozen encoders besides CLIP that the method reads, by their sections."""
        return method_encoders(self.method, cams)

    @property
    def needs_seeds(self) -> bool:
        """Whether this run trains it on hard labels, which the stage seeds makes."""
        return self.trains and METHODS[self.method].needs_seeds


def published_normalization(method: str) -> Literal["clip", "imagenet"]:
    """How the authors' code of a method normalises images; CLIP's way without a method."""
    return METHODS[method].published_normalization if method in METHODS else "clip"


if not TYPE_CHECKING:  # the methods' names and sections come from the registry
    _described = ["none: the CAMs are used as they are"] + [
        f"{name}: {kind.title}, trained on "
        + ("hard labels made from the CAMs (section seeds)" if kind.needs_seeds else "the CAMs")
        for name, kind in METHODS.items()
    ]
    _fields: dict[str, Any] = {
        "method": (
            Literal["none", *METHODS],
            Field("none", description=f"{'. '.join(_described)}."),
        )
    } | {name: (kind, kind()) for name, kind in METHODS.items()}
    RefineConfig = create_model(
        "RefineConfig",
        __base__=RefineConfig,
        __doc__=RefineConfig.__doc__,
        __module__=__name__,
        **_fields,
    )
