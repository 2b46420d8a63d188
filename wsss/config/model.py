"""The sections of the configuration, in the order in which data walks through the stages.

Every field has a default, and the defaults together are the embedded demo. `config.yaml` and the
JSON schema are generated from this module (`wsss config default`, `wsss config schema`).
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, PositiveInt

from wsss.config.base import Section, Share, Variant, departure
from wsss.config.cams import CamsConfig
from wsss.config.labels import CrfConfig, MasksConfig, SeedsConfig
from wsss.config.refine import InferConfig, RefineConfig

SWEPT = frozenset(
    {"seed", "clip", "cams", "seeds", "refine", "infer", "masks", "retrain", "predict"}
)
"""Sections that may differ between the runs of a sweep: all that comes after the manifest."""


AXES: dict[str, tuple[str, ...]] = {
    "cams": ("clip", "cams"),
    "refine": ("seeds", "refine", "infer", "masks"),
    "retrain": ("retrain", "predict"),
}
"""The axes of a matrix, in the order of the chain, and the sections that may differ along each."""


class MatrixConfig(Section):
    """Any CAM source x any refiner x any segmenter, each combination a run.

    Of each axis entries by name, with what is laid over the configuration. The run of an entry a
    axis lies in ``results/<name>/<cams>/<refine>/<retrain>/``; what those of one CAM source, or of
    one source and refiner, have in common lies above it and is made once.
    """

    cams: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        description=(
            "CAM sources by name with what is laid over the sections clip and cams, e.g. {svc: "
            "{cams: {source: patch_text}}}; empty = that of the section cams alone."
        ),
    )
    refine: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        description="Refiners by name: seeds, refine, infer and masks may differ.",
    )
    retrain: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="Segmenters by name: retrain and predict may differ."
    )

    @property
    def axes(self) -> list[str]:
        """Those with entries."""
        return [axis for axis in AXES if getattr(self, axis)]


class ComputeConfig(Section):
    """How the work is done; nothing here changes a result on the CPU."""

    device: str = Field(
        "auto",
        pattern=r"^[a-z]+(:[0-9]{1,3})?$",
        description="auto (CUDA if there is one, else CPU), cpu, cuda, cuda:1 …",
    )
    batch: PositiveInt = Field(
        8, description="Images a batch where images are only looked at (CAMs, prediction)."
    )
    workers: PositiveInt = Field(
        2, le=1024, description="Processes or threads that decode images and run CRFs, per job."
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
        "train",
        description=(
            "List of training ids: a name (train, trainaug; coco: train, train-with-objects) or a "
            "text file."
        ),
    )
    val_list: str = Field("val", description="List of held-out ids, or an empty string for none.")
    tags: str = Field(
        "auto",
        description=(
            "Where image-level tags come from: auto (voc: the XML annotations; coco: the "
            "instances JSON; "
            "demo: tags.csv; folder: <root>/tags.csv), xml, json, or the path of a CSV file. "
            "masks (voc): read from the pixel labels by `wsss truth tags`, as some papers did; for "
            "comparison with those only."
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
        "",
        description=(
            "Folder of ground-truth PNGs to score against. folder: made by hand, empty = none; "
            "coco: drawn by `wsss truth coco-masks`, empty = drawn anew at each scoring."
        ),
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
        "deeplabv1-resnet38",
        "deeplabv2-resnet38",
        "deeplabv2-resnet101",
        "segmenter-deit-s",
    ] = Field(
        "segformer-b0",
        description="Architecture, built by mmsegmentation; docs/segmenters.md compares them.",
    )
    init: str = Field(
        "random",
        description=(
            "Weights of the backbone to start from: random; a name that is downloaded (mit-b0 … "
            "mit-b5, resnet50-v1c, resnet101-v1c, resnet101, deit-s; see docs/segmenters.md); or "
            "the path of a checkpoint (.safetensors, .pth, for ResNet38 also MXNet's .params)."
        ),
    )
    batch_norm: Literal["auto", "trained", "fixed_affine", "frozen"] = Field(
        "auto",
        description=(
            "What batch normalisation learns. trained: scale and shift, over batch statistics; "
            "fixed_affine: nothing, over batch statistics; frozen: nothing, and a backbone's "
            "running statistics are used and kept. auto = that of the network's recipe, or trained "
            "where init is random."
        ),
    )
    crop: PositiveInt = Field(64, description="Side of the square training crop, pixels.")
    short_side: PositiveInt | None = Field(
        None, description="Scale images to this short side first; null = their own size."
    )
    scale_range: tuple[float, float] = Field(
        (0.75, 1.5), description="Random scale of the image before the crop, on top of that."
    )
    max_share: Share = Field(
        0.75,
        description=(
            "Redraw a crop, up to ten times, while one label has a larger share of what is known "
            "of it; 1 = take every crop."
        ),
    )
    color: Literal["photometric", "hsv", "none"] = Field(
        "photometric",
        description=(
            "Random colours. photometric: brightness, contrast, saturation and hue, as "
            "mmsegmentation has it; hsv: hue, saturation and value shifted by up to 10 of 255."
        ),
    )
    batch: PositiveInt = Field(16, description="Global batch size, however many devices share it.")
    iterations: PositiveInt = Field(450, description="Training steps.")
    lr: float = Field(
        6e-4, gt=0, description="Peak learning rate (AdamW for SegFormer, SGD for the others)."
    )
    warmup: int = Field(30, ge=0, description="Steps of linear warm-up.")
    checkpoint_every: PositiveInt = Field(150, description="Steps between resumable checkpoints.")


class PredictConfig(Section):
    """What is asked of the segmenter."""

    scales: list[float] = Field(
        [0.75, 1.0, 1.25], description="Scales of the multi-scale + flip protocol."
    )
    average: Literal["probabilities", "logits"] = Field(
        "probabilities", description="What is averaged over scales and mirroring."
    )
    window: PositiveInt | None = Field(
        None,
        description=(
            "Side of a square window that slides over the (scaled) image, pixels; logits of "
            "overlapping windows are averaged; null = the whole image at once."
        ),
    )
    stride: PositiveInt | None = Field(
        None, description="Pixels between windows; null = the window's side."
    )
    crf: bool = Field(
        True, description="Also predict with a dense CRF (settings of masks.crf), as own rows."
    )
    own_crf: CrfConfig | None = Field(
        None,
        description=(
            "Settings of that CRF where they differ from masks.crf, with the same keys (left out: "
            "the defaults of masks.crf); null = those of masks.crf."
        ),
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
    resamples: int = Field(
        1000,
        ge=0,
        description=(
            "Draws of the images, with replacement, behind the 95 % interval of each mIoU; 0 = no "
            "interval."
        ),
    )


class PicturesConfig(Section):
    """What is drawn."""

    contact_images: PositiveInt = Field(12, description="Images on a contact sheet.")


class Config(Section):
    """A run: everything below decides what ends up in results/<name>/."""

    name: str = Field(
        "demo",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        max_length=200,
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
    matrix: MatrixConfig = MatrixConfig()
    variant: Variant = Field(
        "corrected",
        description=(
            "corrected: what a user should run; published: every departure as the authors ran it."
        ),
    )
    shards: PositiveInt = Field(
        2, le=100_000, description="Parts into which each split is cut; one job a part and stage."
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
        if self.data.tags == "masks" and self.data.kind != "voc":
            found.append(f"data.tags: masks is for kind voc, not {self.data.kind}")
        if self.data.masks and self.data.kind not in ("folder", "coco"):
            found.append(
                f"data.masks is for kinds folder and coco; {self.data.kind} has masks in its root"
            )
        if self.retrain.enabled:
            found += self._segmenter_contradictions()
        found += self._refiner_contradictions()
        return found

    def _segmenter_contradictions(self) -> list[str]:
        retrain, predict = self.retrain, self.predict
        found: list[str] = []
        low, high = retrain.scale_range
        if not 0 < low <= high:
            found.append("retrain.scale_range must be positive and rise, e.g. [0.5, 2.0]")
        if min(predict.scales, default=0) <= 0:
            found.append("predict.scales must be positive, at least one")
        if predict.stride and (predict.window is None or predict.stride > predict.window):
            found.append("predict.stride must be at most predict.window, so that windows meet")
        if retrain.batch_norm == "frozen" and retrain.init == "random":
            found.append(
                "retrain.batch_norm frozen keeps the statistics of weights that retrain.init must "
                "name; it is random"
            )
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
