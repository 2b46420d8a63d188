"""Sections on the CAM sources and the affinity that spreads their maps."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveInt

from wsss.config.base import Section, Share, variant_field

Split = Literal["train", "val"]


class AffinityConfig(Section):
    """Class-aware attention affinity (CLIP-ES)."""

    enabled: bool = Field(True, description="Spread the CAM along the attention of the encoder.")
    last_blocks: PositiveInt = Field(
        8, description="Attention is averaged over this many last blocks."
    )
    sinkhorn_rounds: PositiveInt = Field(3, description="Rounds of column and row normalisation.")
    power: PositiveInt = Field(2, description="Power of the symmetrised transition matrix.")
    box_threshold: Share = Field(
        0.4,
        description="Share of the CAM's maximum above which a box is drawn (VOC 0.4, COCO 0.7).",
    )
    box_edge: Literal["auto", "inclusive", "exclusive"] = variant_field(
        published="exclusive",
        corrected="inclusive",
        description=(
            "exclusive leaves the last grid row and column out of every box (an off-by-one)."
        ),
    )


class ExternalConfig(Section):
    """CAM source `external`: seeds made elsewhere."""

    path: str = Field(
        "", description="Folder of the seeds, one file an image: <id>.npy or <id>.png."
    )
    layout: Literal["npy", "png"] = Field(
        "npy",
        description=(
            "npy: a pickled dictionary (MCTformer, IRN, CLIP-ES …), read through a restricted "
            "reader; png: hard seeds."
        ),
    )
    first_class: Literal[0, 1] = Field(
        0,
        description=(
            "npy: number of the first class. 1 is for dictionaries in which 0 is the background, "
            "as after a CRF; that map is not read."
        ),
    )
    stride: PositiveInt = Field(
        8, description="Pixels a grid cell: seeds are averaged to this grid."
    )
    affinity: bool = Field(
        False,
        description=(
            "Also spread the seeds along the attention of the encoder in section clip, as "
            "cams.affinity says; MCTformer's files were refined already."
        ),
    )


class TseConfig(Section):
    """TSE, text semantic enrichment (ExCEL): class texts take up attributes of a knowledge base."""

    form: Literal["off", "hunted", "mean"] = Field(
        "off",
        description=(
            "off: class texts as they are; hunted: with a softmax-weighted sum of the attributes "
            "that are most like them; mean: with the mean of all attributes, the same for every "
            "class (what hunting as published nearly comes to)."
        ),
    )
    knowledge: str = Field(
        "",
        description=(
            "JSON file of descriptions, {class: [sentences]}, laid over the built-in one (VOC, "
            "COCO and demo classes); `wsss knowledge add` writes one."
        ),
    )
    clusters: PositiveInt | None = Field(
        None,
        description=(
            "Attributes: clusters of the sentences (published: VOC 112, COCO 224); null = 0.28 a "
            "sentence."
        ),
    )
    prefix: Literal["auto", "class", "none"] = variant_field(
        published="class",
        corrected="none",
        description=(
            "class puts the class's prompt before each of its sentences, so that clusters keep to "
            "one class and little is shared; none embeds the sentences alone."
        ),
    )
    vectors: Literal["auto", "raw", "centred"] = variant_field(
        published="raw",
        corrected="centred",
        description=(
            "centred takes the mean of all attributes off them, and that of all classes off the "
            "classes while they are compared, so that what every description has in common does "
            "not count."
        ),
    )
    keep: Share | Literal["auto"] = variant_field(
        published=0.9,
        corrected=0.1,
        description="Share of the attributes, those most like a class, that it may take.",
    )
    temperature: float | Literal["auto"] = variant_field(
        published=1.0,
        corrected=0.05,
        description=(
            "Temperature of the softmax over them; at 1 all of them weigh nearly the same."
        ),
    )
    weight: float = Field(1.0, ge=0, description="Factor of what is added to a class text.")


class PatchTextConfig(Section):
    """CAM source `patch_text`: similarity of patches and texts (ExCEL), without training."""

    relation: Literal["none", "qq_kk_vv", "qq_kk", "vv", "identity"] = Field(
        "qq_kk_vv",
        description=(
            "Attention of the calibrated features (SVC): of queries, keys and values to themselves "
            "(qq_kk_vv: ExCEL; qq_kk: SCLIP; vv: CLIP Surgery), or every patch to itself alone "
            "(identity: MaskCLIP); none: CLIP's own features."
        ),
    )
    heads: Literal["sum", "mean", "each"] = Field(
        "sum",
        description=(
            "Matrix that mixes the values of a head: the sum of those of all heads (ExCEL), their "
            "mean, or its own."
        ),
    )
    blocks: PositiveInt = Field(5, description="Last blocks that are calibrated.")
    score: Literal["surgery", "cosine"] = Field(
        "surgery",
        description=(
            "surgery: channels scaled over the tokens, texts weighed by the class token, their "
            "mean taken off; cosine: the plain cosine."
        ),
    )
    extent: Literal["auto", "tokens", "patches"] = variant_field(
        published="tokens",
        corrected="patches",
        description=(
            "Whose extremes scale a CAM to 0 … 1: all tokens, the class token among them, or the "
            "patches alone."
        ),
    )
    attention: Literal["auto", "mixed", "mean"] = variant_field(
        published="mixed",
        corrected="mean",
        description=(
            "Attention that the affinity averages. mixed: summed over the heads in calibrated "
            "blocks, averaged in the others, which then hardly count; mean: averaged in all."
        ),
    )
    tse: TseConfig = TseConfig()


class CamsConfig(Section):
    """The CAM source."""

    source: Literal["grad_cam", "patch_text", "external"] = Field(
        "grad_cam",
        description=(
            "grad_cam: softmax Grad-CAM of the frozen CLIP; patch_text: similarity of its patches "
            "to texts, without a gradient (ExCEL); external: seeds from files."
        ),
    )
    splits: list[Split] = Field(
        ["train", "val"],
        description="Splits for which CAMs and masks are made; train is what is learned from.",
    )
    gradient: Literal["auto", "margin", "softmax"] = variant_field(
        published="softmax",
        corrected="margin",
        description=(
            "softmax: gradient of the class probability, which vanishes where it is sure; "
            "margin: z_k - logsumexp of the others."
        ),
    )
    scaling: Literal["auto", "exact", "guarded_twice"] = variant_field(
        published="guarded_twice",
        corrected="exact",
        description=(
            "guarded_twice: divide by the range plus 1e-7, and do it twice, which leaves a "
            "maximum of 0.9999999; exact: divide by the range."
        ),
    )
    affinity: AffinityConfig = AffinityConfig()
    patch_text: PatchTextConfig = PatchTextConfig()
    external: ExternalConfig = ExternalConfig()

    @property
    def has_affinity(self) -> bool:
        """Whether maps after the affinity are made beside the CAMs of the source."""
        return self.affinity.enabled and (self.source != "external" or self.external.affinity)
