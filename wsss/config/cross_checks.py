"""What sections say against each other: each by itself is valid."""

from __future__ import annotations

from wsss.config.model import Config
from wsss.config.refiners import ExcelConfig, WeClipConfig


def cross_checks(config: Config) -> list[str]:
    """What sections say against each other, one sentence each; empty when they agree."""
    found = []
    if config.cams.source == "external" and not config.cams.external.path:
        found.append("cams.source is external, so cams.external.path must name the seeds' folder")
    if config.retrain.enabled and "train" not in config.cams.splits:
        found.append("retrain needs masks of the train split: add train to cams.splits")
    if "val" in config.cams.splits and not config.data.val_list:
        found.append("cams.splits has val, but data.val_list is empty")
    if config.data.tags == "masks" and config.data.kind != "voc":
        found.append(f"data.tags: masks is for kind voc, not {config.data.kind}")
    if config.data.masks and config.data.kind not in ("folder", "coco"):
        found.append(
            f"data.masks is for kinds folder and coco; {config.data.kind} has masks in its root"
        )
    if config.retrain.enabled:
        found += _of_segmenter(config)
    found += _of_refiner(config)
    return found


def _of_segmenter(config: Config) -> list[str]:
    retrain, predict = config.retrain, config.predict
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


def _of_refiner(config: Config) -> list[str]:
    refine = config.refine
    found: list[str] = []
    if not refine.is_trained:
        if refine.checkpoint is not None:
            found.append("refine.checkpoint is given, but refine.method is none: name its method")
        return found
    if refine.trains and "train" not in config.cams.splits:
        found.append(f"refine.method is {refine.method}: add train to cams.splits")
    if refine.method == "weclip":
        found += _of_weclip(config)
    if refine.method == "weakclip":
        found += _of_weakclip(config)
    if refine.method == "excel":
        found += _of_excel(config)
    low, high = refine.train.scale_range
    if not 0 < low <= high:
        found.append("refine.train.scale_range must be positive and rise, e.g. [0.5, 2.0]")
    if refine.train.warmup > refine.train.iterations:
        found.append("refine.train.warmup is longer than refine.train.iterations")
    if min(config.infer.scales) <= 0:
        found.append("infer.scales must be positive")
    return found


def _of_weclip(config: Config) -> list[str]:
    weclip = config.refine.weclip
    found: list[str] = []
    if config.infer.scores == "static_cam":
        found.append("infer.scores: static_cam is for excel; set cam or decoder")
    if config.cams.source != "grad_cam" and weclip.crop_cams != "image":
        found.append(
            f"refine.weclip.crop_cams makes Grad-CAMs of crops, but cams.source is "
            f"{config.cams.source}: set crop_cams to image"
        )
    return found + _of_head(weclip, "weclip")


def _of_excel(config: Config) -> list[str]:
    excel = config.refine.excel
    found: list[str] = []
    if config.cams.source == "external" and excel.crop_cams != "image":
        found.append(
            "refine.excel.crop_cams makes patch-text CAMs of crops, but cams.source is "
            "external: set crop_cams to image"
        )
    if config.cams.patch_text.relation == "none":
        found.append("cams.patch_text.relation is none: refine.method excel calibrates it")
    return found + _of_head(excel, "excel")


def _of_head(head: WeClipConfig | ExcelConfig, method: str) -> list[str]:
    found = []
    if head.width % head.heads:
        found.append(f"refine.{method}.heads must divide refine.{method}.width")
    low, high = head.unsure_band
    if not low < high:
        found.append(f"refine.{method}.unsure_band must rise, e.g. [0.4, 0.6]")
    return found


def _of_weakclip(config: Config) -> list[str]:
    weakclip, infer = config.refine.weakclip, config.infer
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
    if min(config.seeds.values) <= 0:
        found.append("seeds.values must be positive")
    return found
