"""The sections of the configuration, in the order in which data walks through the stages.

Every field has a default, and the defaults together are the embedded demo. `config.yaml` and the
JSON schema are generated from this module (`wsss config default`, `wsss config schema`).
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, PositiveInt

from wsss.config.base import Section, Share, Variant, departure
from wsss.config.labels import MasksConfig, SeedsConfig
from wsss.config.refine import InferConfig, RefineConfig

Split = Literal["train", "val"]

SWEPT = frozenset({"seed", "seeds", "refine", "infer", "masks", "retrain", "predict"})
"""Sections that may differ between the runs of a sweep: all that comes after the CAMs."""


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
            "WeCLIP and WeakCLIP feed it. auto = clip, or imagenet where the variant is published "
            "and refine.method is one of them."
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
    sweep: dict[str, list[Any]] = Field(
        default_factory=dict,
        description=(
            "Runs that differ in one key each, e.g. {refine.weakclip.prompts: [2, 4, 8]}: one run "
            "a value (of several keys: each combination) in results/<name>/<key>-<value>/, and a "
            "table of all. They share manifest and CAMs."
        ),
    )
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
    seeds: SeedsConfig = SeedsConfig()
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
        imagenet = self.variant == "published" and self.refine.method in ("weclip", "weakclip")
        return "imagenet" if imagenet else "clip"

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
        if refine.method == "weclip":
            found += self._weclip_contradictions()
        if refine.method == "weakclip":
            found += self._weakclip_contradictions()
        low, high = refine.train.scale_range
        if not 0 < low <= high:
            found.append("refine.train.scale_range must be positive and rise, e.g. [0.5, 2.0]")
        if refine.train.warmup > refine.train.iterations:
            found.append("refine.train.warmup is longer than refine.train.iterations")
        if min(self.infer.scales) <= 0:
            found.append("infer.scales must be positive")
        return found

    def _weclip_contradictions(self) -> list[str]:
        weclip = self.refine.weclip
        found: list[str] = []
        if self.cams.source != "grad_cam" and weclip.crop_cams != "image":
            found.append(
                f"refine.weclip.crop_cams makes Grad-CAMs of crops, but cams.source is "
                f"{self.cams.source}: set crop_cams to image"
            )
        if weclip.width % weclip.heads:
            found.append("refine.weclip.heads must divide refine.weclip.width")
        low, high = weclip.unsure_band
        if not low < high:
            found.append("refine.weclip.unsure_band must rise, e.g. [0.4, 0.6]")
        return found

    def _weakclip_contradictions(self) -> list[str]:
        weakclip, infer = self.refine.weakclip, self.infer
        found: list[str] = []
        if weakclip.width % weakclip.heads:
            found.append("refine.weakclip.heads must divide refine.weakclip.width")
        if weakclip.taps and sorted(set(weakclip.taps)) != weakclip.taps:
            found.append("refine.weakclip.taps must rise, e.g. [4, 6, 8, 12]")
        if infer.scores != "decoder":
            found.append("infer.scores: cam is for weclip; weakclip gives its decoder's alone")
        if infer.stride and (infer.window is None or infer.stride > infer.window):
            found.append("infer.stride must be at most infer.window, so that windows meet")
        if min(self.seeds.values) <= 0:
            found.append("seeds.values must be positive")
        return found
