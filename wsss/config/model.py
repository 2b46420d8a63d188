"""The sections of the configuration, in the order in which data walks through the stages.

Every field has a default, and the defaults together are the embedded demo. `config.yaml` and the
JSON schema are generated from this module (`wsss config default`, `wsss config schema`).
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, PositiveInt

from wsss.config.base import Section, Share, Variant, departure
from wsss.config.cams import CamsConfig
from wsss.config.labels import MasksConfig, SeedsConfig
from wsss.config.refine import InferConfig, RefineConfig

SWEPT = frozenset(
    {"seed", "clip", "cams", "seeds", "refine", "infer", "masks", "retrain", "predict"}
)
"""Sections that may differ between the runs of a sweep: all that comes after the manifest."""


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
    shape: Literal["auto", "kept", "square"] = Field(
        "auto",
        description=(
            "square squeezes every image into a square of side clip.square; kept keeps its shape. "
            "auto = kept, or square where the variant is published and cams.source is patch_text."
        ),
    )
    square: PositiveInt = Field(320, description="Side of that square, pixels.")
    normalization: Literal["auto", "clip", "imagenet"] = Field(
        "auto",
        description=(
            "Mean and deviation of the input: clip = the encoder's own; imagenet = as released "
            "WeCLIP, WeakCLIP and ExCEL feed it. auto = clip, or imagenet where the variant is "
            "published and the chain is one of theirs."
        ),
    )
    position_rounding: Literal["auto", "float32", "float16"] = departure(
        published="float16",
        corrected="float32",
        description=(
            "Precision to which the resized positional table is rounded (published patch_text: "
            "float32)."
        ),
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
    sweep: dict[str, list[Any]] = Field(
        default_factory=dict,
        description=(
            "Runs that differ in one key each, e.g. {refine.weakclip.prompts: [2, 4, 8]}: one run "
            "a value (of several keys: each combination) in results/<name>/<key>-<value>/, and a "
            "table of all. They share the manifest, and CAMs where these are the same."
        ),
    )
    runs: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        description=(
            "Runs by name with what is laid over this configuration, e.g. {plain: {cams: "
            "{affinity: {enabled: false}}}}; compared like those of a sweep, with which they "
            "combine."
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

    def chain_values(self) -> dict[str, dict[str, Any]]:
        """What ``auto`` stands for, by section and key, where that hangs on the chain of methods.

        Everything else that is ``auto`` is resolved by the variant alone.
        """
        published = self.variant == "published"
        excel = published and self.cams.source == "patch_text"
        trained = published and self.refine.method != "none"
        values: dict[str, dict[str, Any]] = {
            "clip": {
                "shape": "square" if excel else "kept",
                "normalization": "imagenet" if excel or trained else "clip",
            },
            "infer": {"mirror_first": not (excel and trained and self.data.kind == "voc")},
        }
        if excel:
            values["clip"]["position_rounding"] = "float32"
            values["cams"] = {"scaling": "exact"}
        return values

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
            if refine.checkpoint is not None:
                found.append(
                    "refine.checkpoint is given, but refine.method is none: name its method"
                )
            return found
        if refine.trains and "train" not in self.cams.splits:
            found.append(f"refine.method is {refine.method}: add train to cams.splits")
        if refine.method == "weclip":
            found += self._weclip_contradictions()
        if refine.method == "weakclip":
            found += self._weakclip_contradictions()
        if refine.method == "excel":
            found += self._excel_contradictions()
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
        if self.infer.scores == "static_cam":
            found.append("infer.scores: static_cam is for excel; set cam or decoder")
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

    def _excel_contradictions(self) -> list[str]:
        excel = self.refine.excel
        found: list[str] = []
        if self.cams.source == "external" and excel.crop_cams != "image":
            found.append(
                "refine.excel.crop_cams makes patch-text CAMs of crops, but cams.source is "
                "external: set crop_cams to image"
            )
        if self.cams.patch_text.relation == "none":
            found.append("cams.patch_text.relation is none: refine.method excel calibrates it")
        if excel.width % excel.heads:
            found.append("refine.excel.heads must divide refine.excel.width")
        low, high = excel.unsure_band
        if not low < high:
            found.append("refine.excel.unsure_band must rise, e.g. [0.4, 0.6]")
        return found

    def _weakclip_contradictions(self) -> list[str]:
        weakclip, infer = self.refine.weakclip, self.infer
        found: list[str] = []
        if weakclip.width % weakclip.heads:
            found.append("refine.weakclip.heads must divide refine.weakclip.width")
        if weakclip.taps and sorted(set(weakclip.taps)) != weakclip.taps:
            found.append("refine.weakclip.taps must rise, e.g. [4, 6, 8, 12]")
        if infer.scores != "decoder":
            found.append(
                "infer.scores: cam is for weclip and excel; weakclip gives its decoder's alone"
            )
        if infer.stride and (infer.window is None or infer.stride > infer.window):
            found.append("infer.stride must be at most infer.window, so that windows meet")
        if min(self.seeds.values) <= 0:
            found.append("seeds.values must be positive")
        return found
