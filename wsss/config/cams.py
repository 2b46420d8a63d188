"""Sections on the CAM sources and the affinity that propagates their maps."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, PositiveInt

from wsss.config.base import Section, Share, Split, block_count, variant_field

AffinityFactor = Literal["distribution", "feature", "dino"]
_OF_FACTOR = {"distribution": {"sharpness", "tau"}, "feature": {"exponent"}, "dino": {"exponent"}}
"""The options that each reads."""


class AffinityConfig(Section):
    """Class-aware affinity between patches: the encoder's attention (CLIP-ES), or another."""

    enabled: bool = Field(True, description="Propagate the CAM between patches.")
    kind: Literal["attention", "distribution", "feature", "dino", "joined"] = Field(
        "attention",
        description=(
            "Kind of affinity. attention: the encoder's mean attention (CLIP-ES). distribution: "
            "how alike two patches spread over all classes and backgrounds. feature: the cosine of "
            "their features. dino: that of features of section dino. joined: attention times that "
            "of joined_with. Refiners multiply theirs by all but attention."
        ),
    )
    joined_with: AffinityFactor = Field("distribution", description="Second factor of joined.")
    sharpness: float = Field(
        30.0, gt=0, description="distribution: factor of the cosines with texts (in CLIP 100)."
    )
    tau: float = Field(
        0.05, gt=0, description="distribution: temperature of exp(-J / tau); J is at most 0.693."
    )
    exponent: float = Field(8.0, gt=0, description="feature, dino: power of positive cosines.")
    last_blocks: PositiveInt | None = Field(
        None, description="Number of last blocks to average. null = 2/3 of the depth (8 of 12)."
    )
    sinkhorn_iterations: PositiveInt = Field(
        3, description="Iterations of column and row normalisation."
    )
    power: PositiveInt = Field(2, description="Power of the symmetrised transition matrix.")
    box_threshold: Share | None = Field(
        0.4,
        description=(
            "Share of the CAM's maximum that a box encloses (VOC 0.4, COCO 0.7). null = no boxes: "
            "every patch is a source."
        ),
    )
    box_edge: Literal["inclusive", "exclusive"] = variant_field(
        published="exclusive",
        corrected="inclusive",
        description=(
            "exclusive: every box lacks its last grid row and column (an off-by-one bug)."
        ),
    )
    scaling: Literal["exact", "guarded_once"] = variant_field(
        published="guarded_once",
        corrected="exact",
        description="guarded_once: divide propagated maps by their range plus 1e-7. exact: by it.",
    )

    @property
    def factor(self) -> AffinityFactor | None:
        """The affinity of pairs that is computed from the patches' features, if any."""
        if self.kind == "attention":
            return None
        return self.joined_with if self.kind == "joined" else self.kind

    @property
    def uses_attention(self) -> bool:
        """Whether it reads CLIP's attention."""
        return self.kind in ("attention", "joined")

    def blocks_of(self, depth: int) -> int:
        """Last blocks whose attention is averaged, in an encoder of so many; 0: none is used."""
        return block_count(self.last_blocks, 2 / 3, depth) if self.uses_attention else 0

    @property
    def uses_texts(self) -> bool:
        """Whether it depends on the texts of all classes and backgrounds."""
        return self.factor == "distribution"

    @property
    def uses_clip(self) -> bool:
        """Whether it compares the patches' features of CLIP."""
        return self.factor in ("distribution", "feature")

    @property
    def uses_dino(self) -> bool:
        """Whether it compares features of section ``dino``."""
        return self.factor == "dino"

    @property
    def unused(self) -> set[str]:
        """Options that the kind does not read."""
        unused = set[str]().union(*_OF_FACTOR.values()) - _OF_FACTOR.get(self.factor or "", set())
        if self.kind != "joined":
            unused.add("joined_with")
        return unused if self.uses_attention else unused | {"last_blocks"}


class ExternalConfig(Section):
    """CAM source `external`: maps that other software made."""

    path: str = Field("", description="Folder with one file per image: <id>.npy or <id>.png.")
    layout: Literal["npy", "png"] = Field(
        "npy",
        description=(
            "npy: a pickled dictionary (MCTformer, IRN, CLIP-ES …), read by a restricted reader. "
            "png: hard labels."
        ),
    )
    first_class: Literal[0, 1] = Field(
        0,
        description=(
            "npy: index of the first class. 1 is for dictionaries in which 0 is the background, "
            "as after a CRF. The background is not read."
        ),
    )
    stride: PositiveInt = Field(
        8, description="The maps are averaged to a grid with cells of this side, pixels."
    )
    affinity: bool = Field(
        False,
        description=(
            "Also propagate the maps between patches of the encoder of section clip, as "
            "cams.affinity says. MCTformer's files are refined already."
        ),
    )


class TseConfig(Section):
    """TSE, text semantic enrichment (ExCEL): attributes of a knowledge base join class texts."""

    form: Literal["off", "topk", "mean"] = Field(
        "off",
        description=(
            "off: class texts as they are. topk: plus a softmax-weighted sum of the most similar "
            "attributes. mean: plus the mean of all attributes, the same for every class (topk as "
            "published is close to it)."
        ),
    )
    knowledge: str = Field(
        "",
        description=(
            "JSON file of descriptions, {class: [sentences]}, which extends the built-in ones "
            "(VOC, COCO and demo classes). `wsss knowledge add` writes one."
        ),
    )
    clusters: PositiveInt | None = Field(
        None,
        description="Clusters of the sentences (VOC 112, COCO 224). null = 0.28 per sentence.",
    )
    prefix: Literal["class", "none"] = variant_field(
        published="class",
        corrected="none",
        description=(
            "class: the class's prompt stands before each of its sentences, so that most clusters "
            "belong to one class. none: the sentences alone are embedded. Sentences of a file may "
            "already begin with it, as ExCEL's do."
        ),
    )
    centering: bool = variant_field(
        published=False,
        corrected=True,
        description=(
            "Subtract the mean of all attributes from each attribute, so that what all "
            "descriptions share does not count. Comparisons subtract the mean of all classes too."
        ),
    )
    top_share: Share = variant_field(
        published=0.9,
        corrected=0.1,
        description="Share of the attributes, the most similar ones, that a class may use.",
    )
    temperature: float = variant_field(
        published=1.0,
        corrected=0.05,
        gt=0,
        description="Temperature of the softmax over them. At 1 all weights are nearly equal.",
    )
    weight: float = Field(1.0, ge=0, description="Factor of the sum that is added to a class text.")


class PatchTextConfig(Section):
    """CAM source `patch_text`: similarity of patches and texts (ExCEL, training-free)."""

    relation: Literal["none", "qq_kk_vv", "qq_kk", "vv", "identity"] = Field(
        "qq_kk_vv",
        description=(
            "Attention in the calibrated blocks (SVC). qq_kk_vv: queries, keys and values attend "
            "to themselves (ExCEL). qq_kk: SCLIP. vv: CLIP Surgery. identity: every patch attends "
            "to itself alone (MaskCLIP). none: CLIP's original features."
        ),
    )
    heads: Literal["sum", "mean", "each"] = Field(
        "sum",
        description=(
            "Attention that is applied to a head's values: the sum over all heads (ExCEL), the "
            "mean over all heads, or that of each head."
        ),
    )
    blocks: PositiveInt | None = Field(
        None, description="Number of last blocks to calibrate. null = 5/12 of the depth (10 of 24)."
    )
    score: Literal["surgery", "cosine"] = Field(
        "surgery",
        description=(
            "surgery: channels are scaled over the tokens, texts are weighted by the class token, "
            "and their mean is subtracted. cosine: plain cosine similarity."
        ),
    )
    min_max_over: Literal["tokens", "patches"] = variant_field(
        published="tokens",
        corrected="patches",
        description=(
            "Minimum and maximum that scale a CAM to 0 … 1: over all tokens, including the class "
            "token, or over the patches."
        ),
    )
    attention: Literal["mixed", "mean"] = variant_field(
        published="mixed",
        corrected="mean",
        description=(
            "Attention behind the affinity. mixed: the sum over the heads in calibrated blocks and "
            "the mean in the others, which then hardly count. mean: the mean in all."
        ),
    )
    tse: TseConfig = TseConfig()

    def blocks_of(self, depth: int) -> int:
        """`blocks` of an encoder of so many blocks."""
        return block_count(self.blocks, 5 / 12, depth)


class CamsConfig(Section):
    """The CAM source."""

    source: Literal["grad_cam", "patch_text", "external"] = Field(
        "grad_cam",
        description=(
            "grad_cam: softmax Grad-CAM of the frozen CLIP. patch_text: similarity of its patches "
            "to texts, without a gradient (ExCEL). external: maps from files."
        ),
    )
    splits: list[Split] = Field(
        ["train", "val"],
        description="Splits for which CAMs and masks are made. Trainings use train.",
    )
    gradient: Literal["margin", "softmax"] = variant_field(
        published="softmax",
        corrected="margin",
        description=(
            "softmax: gradient of the class probability, which vanishes where that is close to 1. "
            "margin: gradient of z_k - logsumexp of the other logits."
        ),
    )
    scaling: Literal["exact", "guarded_twice"] = variant_field(
        published="guarded_twice",
        corrected="exact",
        description=(
            "Scaling of the source's maps. guarded_twice: divide by the range plus 1e-7, twice, "
            "which leaves a maximum of 0.9999999. exact: divide by the range."
        ),
    )
    scales: list[float] = Field(
        [1.0],
        min_length=1,
        description=(
            "Scales of the photo whose CAMs are averaged, e.g. [0.5, 1.0, 1.5, 2.0] (IRN). One "
            "of them is 1: its grid holds the average, and its affinity is used."
        ),
    )
    flip: bool = Field(False, description="Average with the CAMs of the mirrored photo, too.")
    affinity: AffinityConfig = AffinityConfig()
    patch_text: PatchTextConfig = PatchTextConfig()
    external: ExternalConfig = ExternalConfig()

    @property
    def has_affinity(self) -> bool:
        """Whether propagated CAMs are made in addition to the CAMs of the source."""
        return self.affinity.enabled and (self.source != "external" or self.external.affinity)

    @property
    def other_encoders(self) -> tuple[str, ...]:
        """Frozen encoders besides CLIP that propagated CAMs need, by their sections."""
        return ("dino",) if self.has_affinity and self.affinity.uses_dino else ()

    @property
    def compares_texts(self) -> bool:
        """Whether propagated CAMs depend on the texts of all classes, by the affinity."""
        return self.has_affinity and self.affinity.uses_texts

    def effective(self) -> dict[str, Any]:
        """See `Section.effective`: without what the affinity and TSE leave unused."""
        tse = {"knowledge"} if self.patch_text.tse.form == "off" else set[str]()
        unused: Any = {"affinity": self.affinity.unused, "patch_text": {"tse": tse}}
        return self.model_dump(mode="json", exclude=unused)
