"""Contradictions between sections that are valid by themselves."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

from wsss.config.data import holds_nothing_out
from wsss.config.errors import ConfigError
from wsss.config.infer import window_problem
from wsss.config.labels import refine_errors
from wsss.config.model import Config
from wsss.config.paths import RESULTS, expand_path
from wsss.config.retrain import PATCHES, SMALLEST_SIDE, crop_problem
from wsss.config.safe_yaml import read_bytes

_MOST_JSON = 2**20  # bytes


def cross_checks(config: Config) -> list[str]:
    """Contradictions between sections, one sentence each; empty when they agree."""
    cams, data, retrain = config.cams, config.data, config.retrain
    errors = _of_upper_bound(config) if config.supervision == "masks" else []
    if cams.source == "external" and not cams.external.path:
        errors.append("cams.source is external, so cams.external.path must name a folder of maps")
    if cams.scales.count(1.0) != 1 or min(cams.scales) <= 0:
        errors.append("cams.scales must be positive and have 1 once")
    if cams.source == "external" and (cams.scales != [1.0] or cams.flip):
        errors.append("cams.scales and cams.flip are for sources that run CLIP, not for external")
    if cams.source == "external" and cams.affinity.kind != "attention":
        errors += _of_imported(config)
    if retrain.enabled and "train" not in cams.splits and config.supervision == "tags":
        errors.append("retrain needs masks of the train split: add train to cams.splits")
    if "val" in cams.splits and not data.val_list:
        errors.append(
            "cams.splits has val, but data.val_list is empty: name a list of held-out images, or "
            "set cams.splits to [train]"
        )
    if data.tags == "masks" and data.kind not in ("voc", "coco"):
        errors.append(f"data.tags: masks is for kinds voc and coco, not {data.kind}")
    if data.masks and data.kind not in ("folder", "coco"):
        errors.append(f"data.masks is for kinds folder and coco; {data.kind} has masks in its root")
    if data.kind == "coco" and data.coco_truth == "png" and not data.masks:
        errors.append("data.coco_truth is png, so data.masks must name the folder of the PNGs")
    if retrain.enabled:
        errors += _of_segmenter(config)
    elif retrain.corrected:
        errors.append(
            "retrain.corrected is given, but retrain.enabled is false: nothing would learn from it"
        )
    return errors + refine_errors(config.masks) + _of_refiner(config)


def check_encoder_sizes(config: Config, where: str) -> None:
    """Refuse crops, windows and numbers of blocks that do not fit the encoder.

    It looks at a file, so that it is for those who start a run, and not for each of its jobs.

    Args:
        where: its source, for messages.

    Raises:
        ConfigError: some do not fit, as far as the encoder's model config is here.
    """
    sizes = _encoder_sizes(config.clip.model)
    if sizes and (errors := encoder_errors(config, config.clip.model, *sizes)):
        raise ConfigError(f"{where}: not a valid configuration\n  " + "\n  ".join(errors))


def encoder_errors(config: Config, model: str, patch: tuple[int, int], depth: int) -> list[str]:
    """Crops, windows and numbers of blocks that do not fit the encoder, one sentence each.

    Args:
        model: its name, for messages.
        patch: height and width of its patches, pixels.
        depth: the number of its blocks.
    """
    cams, refine, retrain = config.cams, config.refine, config.retrain
    errors = [refine.train.crop_problem(patch)] if refine.trains else []
    blocks: dict[str, int | None] = {}
    has_cams = config.supervision == "tags" or refine.is_trained
    if has_cams and cams.has_affinity:
        blocks["cams.affinity.last_blocks"] = cams.affinity.last_blocks
    if has_cams and cams.source == "patch_text":
        blocks["cams.patch_text.blocks"] = cams.patch_text.blocks
    if refine.is_trained:
        if refine.options.windows:
            errors.append(window_problem("infer.window", config.infer.window, patch))
        for name, number in refine.options.encoder_blocks.items():
            blocks[f"refine.{refine.method}.{name}"] = number
    if retrain.enabled and retrain.uses_clip:
        errors.append(crop_problem(retrain.model, retrain.crop, patch[0]))
        window = config.predict.window
        errors.append(window_problem("predict.window", window, patch, SMALLEST_SIDE))
    errors += [
        f"{key} is {count}, but {model} has {depth} blocks; lower it"
        for key, count in blocks.items()
        if count and count > depth
    ]
    return [error for error in errors if error]


def _encoder_sizes(model: str) -> tuple[tuple[int, int], int] | None:
    """Patch and number of blocks of an image tower, by its model config alone.

    open_clip, which takes seconds to import, is not. What reads the encoder says what is wrong with
    its config.

    Args:
        model: ``clip.model``.

    Returns:
        None where no config is here, and of timm's towers, whose config has no sizes.
    """
    if model.startswith("local-dir:"):
        path = expand_path(model.removeprefix("local-dir:")) / "open_clip_config.json"
    elif model.endswith(".json"):
        path = expand_path(model)
    else:
        package = importlib.util.find_spec("open_clip")
        if package is None or package.origin is None or ":" in model:
            return None
        folder = Path(package.origin).parent / "model_configs"
        path = folder / f"{model.replace('/', '-')}.json"
    try:
        content: Any = json.loads(read_bytes(path, _MOST_JSON))
        vision = content.get("model_cfg", content)["vision_cfg"]
        if vision.get("timm_model_name"):
            return None
        patch, depth = vision.get("patch_size", 16), vision.get("layers", 12)
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError):
        return None
    sizes = (patch, depth)
    return ((patch, patch), depth) if all(type(n) is int and n > 0 for n in sizes) else None


def check_photo_folder(config: Config, where: str) -> None:
    """Refuse a run on photos that would write masks among them, or needs held-out ones without any.

    It looks at files, so that it is for those who start a run, and not for each of its jobs.

    Args:
        where: its source, for messages.

    Raises:
        ConfigError: the message says what to set.
    """
    root, gallery = expand_path(config.data.root), config.pictures.folder
    if config.data.kind == "folder" and gallery and _is_among(root, expand_path(gallery)):
        raise ConfigError(
            f"{where}: pictures.folder: {gallery} lies in data.root, where masks would count as "
            "photos; choose a folder outside, or leave the key out: results are no photos"
        )
    needs = "val" in config.cam_splits or config.retrain.enabled
    if needs and (reason := holds_nothing_out(config.data)):
        raise ConfigError(
            f"{where}: data.val_list is {config.data.val_list}, but {reason}, so no photo is held "
            "out: set data.val_list to '' and cams.splits to [train], or name held-out photos there"
        )


def _is_among(root: Path, folder: Path) -> bool:
    """Whether photos would be looked for in a folder."""
    folder, results = folder.resolve(), RESULTS.resolve()
    return folder.is_relative_to(root.resolve()) and (
        not folder.is_relative_to(results) or root.resolve().is_relative_to(results)
    )


def _of_imported(config: Config) -> list[str]:
    """Files hold maps alone: an affinity needs the features of an encoder."""
    refine = config.refine
    if config.cams.has_affinity or (refine.is_trained and refine.options.refines_cams):
        return []
    return [
        f"cams.affinity.kind is {config.cams.affinity.kind}, but cams.source is external and its "
        "maps are not propagated: set cams.external.affinity to true, which needs the encoder of "
        "section clip, or cams.affinity.kind to attention"
    ]


def _of_upper_bound(config: Config) -> list[str]:
    data, refine = config.data, config.refine
    errors: list[str] = []
    if not data.has_truth:
        errors.append("supervision is masks, so data.masks must name the pixel labels")
    if not data.val_list:
        errors.append("supervision is masks: data.val_list must name images to score")
    if refine.checkpoint is not None:
        errors.append("supervision is masks: the refiner is trained here; drop refine.checkpoint")
    if config.retrain.corrected:
        errors.append(
            "supervision is masks: every training image has a pixel label; drop retrain.corrected"
        )
    if not refine.is_trained and not config.retrain.enabled:
        errors.append(
            "supervision is masks, but nothing is trained: choose refine.method or retrain"
        )
    return errors


def _of_segmenter(config: Config) -> list[str]:
    retrain, predict = config.retrain, config.predict
    errors: list[str] = []
    low, high = retrain.scale_range
    if not 0 < low <= high:
        errors.append("retrain.scale_range must be positive and rise, e.g. [0.5, 2.0]")
    if retrain.warmup >= retrain.iterations:
        errors.append(
            f"retrain.warmup is {retrain.warmup} steps, but retrain.iterations only "
            f"{retrain.iterations}; lower the warm-up"
        )
    if retrain.batch == 1 and retrain.model.startswith("deeplabv3plus"):
        errors.append(
            f"retrain.batch is 1, but {retrain.model} normalises one pooled value per image over "
            "the batch; set it to at least 2"
        )
    if problem := crop_problem(retrain.model, retrain.crop):
        errors.append(problem)
    patch = PATCHES.get(retrain.model, 1)
    if not retrain.uses_clip and (
        problem := window_problem("predict.window", predict.window, (patch, patch), SMALLEST_SIDE)
    ):
        errors.append(problem)
    if predict.stride and (predict.window is None or predict.stride > predict.window):
        errors.append("predict.stride must be at most predict.window, so that windows meet")
    if retrain.init == "clip" and not retrain.uses_clip:
        errors.append(
            "retrain.init clip stands for the image tower of section clip, which only "
            f"retrain.model clip-vit has; it is {retrain.model}. Set retrain.init to auto"
        )
    if retrain.batch_norm == "frozen" and retrain.init == "random":
        errors.append(
            "retrain.batch_norm frozen needs the statistics of weights, which retrain.init must "
            "name; it is random"
        )
    return errors


def _of_refiner(config: Config) -> list[str]:
    refine = config.refine
    if not refine.is_trained:
        if refine.checkpoint is None:
            return []
        return ["refine.checkpoint is given, but refine.method is none: name its method"]
    errors: list[str] = []
    if refine.trains and "train" not in config.cams.splits and config.supervision == "tags":
        errors.append(f"refine.method is {refine.method}: add train to cams.splits")
    errors += [f"refine.{refine.method}: {error}" for error in refine.options.cross_checks(config)]
    low, high = refine.train.scale_range
    if not 0 < low <= high:
        errors.append("refine.train.scale_range must be positive and rise, e.g. [0.5, 2.0]")
    if refine.train.warmup > refine.train.iterations:
        errors.append("refine.train.warmup is longer than refine.train.iterations")
    return errors
