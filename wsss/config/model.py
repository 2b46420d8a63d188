"""The sections of the configuration, in the order in which data walks through the stages.

Every field has a default, and the defaults together are the embedded demo. `config.yaml` and the
JSON schema are generated from this module (`wsss config default`, `wsss config schema`).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from wsss.config.base import Section, Variant, departure

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Split = Literal["train", "val"]


class ComputeConfig(Section):
    """How the work is done; nothing here changes a result on the CPU."""

    device: str = Field(
        "auto", description="auto (CUDA if there is one, else CPU), cpu, cuda, cuda:1 …"
    )
    batch: PositiveInt = Field(
        8, description="Images a batch where images are only looked at (CAMs, prediction)."
    )
    workers: PositiveInt = Field(
        2, description="Processes or threads that decode images and run CRFs, per job."
    )


class DataConfig(Section):
    """Images and their tags. Paths may use ${WSSS_SHARED} (default ../shared) and ~."""

    kind: Literal["demo", "voc", "coco", "folder"] = Field(
        "demo",
        description=(
            "demo: generated; voc: VOC 2012 devkit layout; coco: COCO 2014; folder: photos "
            "and a CSV."
        ),
    )
    root: str = Field(
        "results/demo-data", description="Folder of the data set (demo: where it is generated)."
    )
    demo_images: tuple[PositiveInt, PositiveInt] = Field(
        (240, 80), description="demo only: how many training and held-out images are drawn."
    )
    train_list: str = Field(
        "train", description="List of training ids: a name (train, trainaug) or a text file."
    )
    val_list: str = Field("val", description="List of held-out ids, or an empty string for none.")
    tags: str = Field(
        "auto",
        description=(
            "Where image-level tags come from: auto (voc: the XML annotations; coco: the "
            "instances JSON; "
            "demo: tags.csv; folder: <root>/tags.csv), xml, json, or the path of a CSV file."
        ),
    )
    classes: list[str] = Field(
        default_factory=list,
        description=(
            "folder only: the class names; empty = the tags that occur, in alphabetical order."
        ),
    )
    prompts: dict[str, str] = Field(
        default_factory=dict,
        description=(
            "Words to put into the prompt instead of a class name, e.g. {crane: construction "
            "crane}."
        ),
    )
    backgrounds: list[str] | None = Field(
        None,
        description="Background words of the softmax; null = those of the data set's class list.",
    )
    masks: str = Field(
        "", description="folder only: folder of ground-truth PNGs to score against; empty = none."
    )
    max_pixels: PositiveInt = Field(
        50_000_000, description="Larger images are quarantined from their header, before decoding."
    )
    quarantine_limit: Share = Field(
        0.02, description="The run stops when a larger share of the images cannot be used."
    )


class ClipConfig(Section):
    """The frozen encoder. Paths may use ${WSSS_SHARED}, ${WSSS_PACKAGE} (this package) and ~."""

    model: str = Field(
        "${WSSS_PACKAGE}/demo/weights/demo-vit-p8.json",
        description=(
            "open_clip model name (ViT-B-16-quickgelu …) or path of an open_clip model config"
            " (JSON)."
        ),
    )
    pretrained: str = Field(
        "${WSSS_PACKAGE}/demo/weights/demo-vit-p8.safetensors",
        description=(
            "open_clip pretrained tag (openai …) or path of a weight file; 'random' for none "
            "(tests)."
        ),
    )
    precision: Literal["float32", "bfloat16"] = Field(
        "float32", description="Type of the encoder's weights; CAM arithmetic is always float32."
    )
    template: list[str] = Field(
        ["a clean origami {}."], description="Prompt templates; their embeddings are averaged."
    )
    long_side: int | None = Field(
        None, description="Scale images to this long side first; null = their own size."
    )
    normalization: Literal["auto", "clip", "imagenet"] = Field(
        "auto",
        description=(
            "Mean and deviation of the input: clip = the encoder's own; imagenet = as released "
            "WeCLIP feeds it. auto = clip, or imagenet where the variant is published and "
            "refine.method is weclip."
        ),
    )
    position_rounding: Literal["auto", "float32", "float16"] = departure(
        published="float16",
        corrected="float32",
        description="Precision to which the resized positional table is rounded.",
    )


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
    box_edge: Literal["auto", "inclusive", "exclusive"] = departure(
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
            "npy: a pickled dictionary (MCTformer, CLIP-ES), read through a restricted "
            "reader; png: hard seeds."
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


class CamsConfig(Section):
    """The CAM source."""

    source: Literal["grad_cam", "external"] = Field(
        "grad_cam",
        description="grad_cam: softmax Grad-CAM of the frozen CLIP; external: seeds from files.",
    )
    splits: list[Split] = Field(
        ["train", "val"],
        description="Splits for which CAMs and masks are made; train is what is learned from.",
    )
    gradient: Literal["auto", "margin", "softmax"] = departure(
        published="softmax",
        corrected="margin",
        description=(
            "softmax: gradient of the class probability, which vanishes where it is sure; "
            "margin: z_k - logsumexp of the others."
        ),
    )
    scaling: Literal["auto", "exact", "guarded_twice"] = departure(
        published="guarded_twice",
        corrected="exact",
        description=(
            "guarded_twice: divide by the range plus 1e-7, and do it twice, which leaves a "
            "maximum of 0.9999999; exact: divide by the range."
        ),
    )
    affinity: AffinityConfig = AffinityConfig()
    external: ExternalConfig = ExternalConfig()

    @property
    def has_affinity(self) -> bool:
        """Whether maps after the affinity are made beside the CAMs of the source."""
        return self.affinity.enabled and (self.source == "grad_cam" or self.external.affinity)


class TrainingConfig(Section):
    """How a refiner is trained: crops, AdamW, linear warm-up, polynomial decay."""

    iterations: PositiveInt = Field(400, description="Training steps.")
    batch: PositiveInt = Field(4, description="Crops a step.")
    crop: PositiveInt = Field(
        64, description="Side of the square training crop, pixels; a multiple of the patch."
    )
    scale_range: tuple[float, float] = Field(
        (0.75, 1.5), description="Random scale of the image, relative to its own size."
    )
    lr: float = Field(2e-3, gt=0, description="Peak learning rate.")
    weight_decay: float = Field(0.01, ge=0, description="AdamW's weight decay.")
    warmup: int = Field(50, ge=0, description="Steps of linear warm-up.")
    power: float = Field(1.0, ge=0, description="Exponent of the polynomial decay.")
    checkpoint_every: PositiveInt = Field(200, description="Steps between resumable states.")


class WeClipConfig(Section):
    """WeCLIP: frozen features of all blocks, fusion, transformer decoder, refinement module."""

    width: PositiveInt = Field(64, description="Channels of the fused features (published: 256).")
    depth: PositiveInt = Field(3, description="Blocks of the decoder.")
    heads: PositiveInt = Field(8, description="Heads of a decoder block; they divide the width.")
    dropout: Share = Field(0.1, description="Share of fused channels zeroed in training.")
    affinity: Literal["auto", "raw", "cosine"] = departure(
        published="raw",
        corrected="cosine",
        description=(
            "Learned affinity, a sigmoid of dot products of fused features: raw saturates early, "
            "cosine divides by their lengths and a temperature."
        ),
    )
    temperature: float = Field(0.1, gt=0, description="Temperature of affinity: cosine.")
    affinity_weight: float = Field(0.1, ge=0, description="Weight of the affinity loss.")
    affinity_radius: PositiveInt = Field(
        8, description="Affinity loss: patches at most this many rows and columns apart."
    )
    rfm_start: int = Field(
        200,
        ge=0,
        description=(
            "Training steps before the refinement module takes part in the pseudo labels (named "
            "15000 for VOC, 40000 for COCO; as released validation counts, so 9144 for VOC)."
        ),
    )
    rfm_blocks: PositiveInt = Field(
        6, description="Last blocks among which the refinement module chooses (VOC 6, COCO 10)."
    )
    rfm_distance: Literal["auto", "absolute", "signed"] = departure(
        published="signed",
        corrected="absolute",
        description=(
            "Distance of a block's attention from the learned affinity: signed sums cancel, so "
            "that the affinity has no say in the choice."
        ),
    )
    crop_cams: Literal["auto", "crop", "gated", "located", "image"] = departure(
        published="crop",
        corrected="located",
        description=(
            "CAMs of a training crop. crop: Grad-CAM of the crop for every tag of the image, "
            "whether the crop shows it or not; gated: pixels of a tag whose probability on the "
            "crop is below crop_gate of that on the image are not learned from; located: those of "
            "a tag of which the image's CAM nowhere on the crop reaches crop_gate; image: the "
            "image's CAM, cut."
        ),
    )
    crop_gate: Share = Field(0.5, description="See crop_cams: gated and located.")
    padding: Literal["auto", "labelled", "ignored"] = departure(
        published="labelled",
        corrected="ignored",
        description="Whether the padding of a crop that reaches over the image is learned from.",
    )
    unsure: Literal["auto", "labelled", "ignored"] = departure(
        published="labelled",
        corrected="ignored",
        description="Whether pixels with a largest class score in unsure_band are learned from.",
    )
    unsure_band: tuple[Share, Share] = Field(
        (0.4, 0.6),
        description="Class scores, after pixel-adaptive refinement, that are unsure.",
    )


class RefineConfig(Section):
    """The refiner trained on the CAMs."""

    method: Literal["none", "weclip"] = Field(
        "none",
        description="none: the CAM is handed on as it is; weclip: WeCLIP, trained on the CAMs.",
    )
    train: TrainingConfig = TrainingConfig()
    weclip: WeClipConfig = WeClipConfig()

    @property
    def is_trained(self) -> bool:
        """Whether there is something to train, which then also predicts all labels by itself."""
        return self.method != "none"


class InferConfig(Section):
    """What is asked of the trained refiner."""

    scores: Literal["decoder", "cam"] = Field(
        "decoder",
        description=(
            "Class scores for the pseudo masks: decoder = its own probabilities of the image's "
            "tags; cam = the CAM refined with what it learned."
        ),
    )
    scales: list[float] = Field(
        [1.0, 0.75], min_length=1, description="Scales; logits are averaged, mirrored ones too."
    )
    long_side: int | None = Field(
        None, description="Scale images to this long side first; null = as clip.long_side."
    )
    grid: Literal["auto", "floored", "aligned"] = departure(
        published="floored",
        corrected="aligned",
        description=(
            "floored: a remainder of up to a patch is cut off, yet logits are stretched over the "
            "whole image; aligned: the image is resized to whole patches."
        ),
    )
    dropout: Literal["auto", "on", "off"] = departure(
        published="on",
        corrected="off",
        description="on: the network is in training mode while it is evaluated, as released.",
    )
    crf: bool = Field(
        True, description="Also predict with a dense CRF (settings of masks.crf), as own rows."
    )


class BackgroundConfig(Section):
    """From class scores to a background score."""

    rule: Literal["power", "constant"] = Field(
        "power", description="power: (1 - max score)^value; constant: the value itself."
    )
    value: float = Field(
        1.0, gt=0.0, description="Exponent of the power rule, or the constant background score."
    )


class CrfConfig(Section):
    """Dense CRF on the present classes and the background."""

    enabled: bool = Field(True, description="Refine the scores with the image before the arg max.")
    iterations: PositiveInt = Field(10, description="Mean-field iterations.")
    gaussian_sxy: float = Field(
        1.0, gt=0, description="Spatial deviation of the smoothness kernel, pixels."
    )
    gaussian_compat: float = Field(3.0, ge=0, description="Weight of the smoothness kernel.")
    bilateral_sxy: float = Field(
        67.0, gt=0, description="Spatial deviation of the appearance kernel, pixels."
    )
    bilateral_srgb: float = Field(
        3.0, gt=0, description="Colour deviation of the appearance kernel, grey levels."
    )
    bilateral_compat: float = Field(4.0, ge=0, description="Weight of the appearance kernel.")
    image: Literal["auto", "raw", "wrapped"] = departure(
        published="wrapped",
        corrected="raw",
        description=(
            "Image of the appearance kernel: raw RGB, or BGR minus a mean cast to uint8 with "
            "wrap-around."
        ),
    )
    unary: Literal["auto", "float32", "float16"] = departure(
        published="float16",
        corrected="float32",
        description="Precision in which the unary term is computed.",
    )


class MasksConfig(Section):
    """Pseudo masks: `label` (arg max, scored) and `train` (255 where unsure, learned from)."""

    background: BackgroundConfig = BackgroundConfig()
    crf: CrfConfig = CrfConfig()
    min_confidence: Share = Field(
        0.95, description="`train` masks are 255 where the largest posterior is lower."
    )


class RetrainConfig(Section):
    """The supervised segmenter, trained on the `train` masks through mmsegmentation."""

    enabled: bool = Field(
        True, description="Train the segmenter; false ends the chain at the pseudo masks."
    )
    model: Literal[
        "segformer-b0",
        "segformer-b1",
        "segformer-b2",
        "segformer-b3",
        "segformer-b4",
        "segformer-b5",
        "deeplabv3plus-r50",
        "deeplabv3plus-r101",
    ] = Field("segformer-b0", description="Architecture, as mmsegmentation's own configs build it.")
    init: str = Field(
        "random", description="random, or path of a backbone checkpoint to start from."
    )
    crop: PositiveInt = Field(64, description="Side of the square training crop, pixels.")
    scale_range: tuple[float, float] = Field(
        (0.75, 1.5), description="Random scale of the image before the crop."
    )
    batch: PositiveInt = Field(16, description="Global batch size, however many devices share it.")
    iterations: PositiveInt = Field(450, description="Training steps.")
    lr: float = Field(
        6e-4, gt=0, description="Peak learning rate (AdamW for SegFormer, SGD for DeepLab)."
    )
    warmup: int = Field(30, ge=0, description="Steps of linear warm-up.")
    checkpoint_every: PositiveInt = Field(150, description="Steps between resumable checkpoints.")


class PredictConfig(Section):
    """What is asked of the segmenter."""

    scales: list[float] = Field(
        [0.75, 1.0, 1.25], description="Scales of the multi-scale + flip protocol."
    )
    crf: bool = Field(
        True, description="Also predict with a dense CRF (settings of masks.crf), as own rows."
    )


class ScoreConfig(Section):
    """What is measured. This stage alone opens pixel labels."""

    cam_thresholds: Literal["fixed", "fixed+best"] = Field(
        "fixed+best",
        description=(
            "CAM rows at the configured background rule, and, apart, at the threshold that is best "
            "on the same truth."
        ),
    )
    report_classes: list[str] = Field(
        default_factory=list, description="Extra column: mean IoU over these classes only."
    )


class PicturesConfig(Section):
    """What is drawn."""

    contact_images: PositiveInt = Field(12, description="Images on a contact sheet.")


class Config(Section):
    """A run: everything below decides what ends up in results/<name>/."""

    name: str = Field(
        "demo",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        description="Results go to results/<name>/.",
    )
    seed: int = Field(0, ge=0, description="Seed of everything random.")
    variant: Variant = Field(
        "corrected",
        description=(
            "corrected: what a user should run; published: every departure as the authors ran it."
        ),
    )
    shards: PositiveInt = Field(
        2, description="Parts into which each split is cut; one job a part and stage."
    )
    compute: ComputeConfig = ComputeConfig()
    data: DataConfig = DataConfig()
    clip: ClipConfig = ClipConfig()
    cams: CamsConfig = CamsConfig()
    refine: RefineConfig = RefineConfig()
    infer: InferConfig = InferConfig()
    masks: MasksConfig = MasksConfig()
    retrain: RetrainConfig = RetrainConfig()
    predict: PredictConfig = PredictConfig()
    score: ScoreConfig = ScoreConfig()
    pictures: PicturesConfig = PicturesConfig()

    @property
    def published_normalization(self) -> Literal["clip", "imagenet"]:
        """What ``clip.normalization: auto`` stands for: the one departure that hangs on another
        section than its own.
        """
        weclip = self.variant == "published" and self.refine.method == "weclip"
        return "imagenet" if weclip else "clip"

    def contradictions(self) -> list[str]:
        """What sections say against each other, one sentence each; empty when they agree."""
        found = []
        if self.cams.source == "external" and not self.cams.external.path:
            found.append(
                "cams.source is external, so cams.external.path must name the seeds' folder"
            )
        if self.retrain.enabled and "train" not in self.cams.splits:
            found.append("retrain needs masks of the train split: add train to cams.splits")
        if "val" in self.cams.splits and not self.data.val_list:
            found.append("cams.splits has val, but data.val_list is empty")
        found += self._refiner_contradictions()
        return found

    def _refiner_contradictions(self) -> list[str]:
        refine = self.refine
        found: list[str] = []
        if not refine.is_trained:
            return found
        if "train" not in self.cams.splits:
            found.append(f"refine.method is {refine.method}: add train to cams.splits")
        if self.cams.source != "grad_cam" and refine.weclip.crop_cams != "image":
            found.append(
                f"refine.weclip.crop_cams makes Grad-CAMs of crops, but cams.source is "
                f"{self.cams.source}: set crop_cams to image"
            )
        if refine.weclip.width % refine.weclip.heads:
            found.append("refine.weclip.heads must divide refine.weclip.width")
        low, high = refine.weclip.unsure_band
        if not low < high:
            found.append("refine.weclip.unsure_band must rise, e.g. [0.4, 0.6]")
        low, high = refine.train.scale_range
        if not 0 < low <= high:
            found.append("refine.train.scale_range must be positive and rise, e.g. [0.5, 2.0]")
        if refine.train.warmup > refine.train.iterations:
            found.append("refine.train.warmup is longer than refine.train.iterations")
        if min(self.infer.scales) <= 0:
            found.append("infer.scales must be positive")
        return found
