"""Whether the weights that a configuration names exist, without loading or fetching them."""

from __future__ import annotations

import logging
from pathlib import Path

from wsss.config.model import Config
from wsss.config.paths import expand_path

_log = logging.getLogger(__name__)
NO_FILES = {"random", "clip"}  # clip: those of section clip
_SUFFIXES = {".safetensors", ".pt", ".pth", ".bin", ".params", ".json"}


def check_weights(config: Config) -> None:
    """Check the names of weights of `clip`, `dino`, `refine` and `retrain`.

    A file that is not here is only logged: jobs may run elsewhere.

    Raises:
        ClipLoadError: open_clip knows no such model, or no such weights of it.
        DinoLoadError: timm knows no such DINOv2, or no such weights of it.
        ValueError: there are no such initial weights of the segmenter, or they are of another; the
            crop or a number of blocks does not fit the encoder.
    """
    texts = {"clip.model": config.clip.model, "clip.pretrained": config.clip.pretrained}
    dino = config.dino if "dino" in config.encoders_besides_clip else None
    if dino:
        texts |= {"dino.model": dino.model, "dino.pretrained": dino.pretrained}
    if config.refine.checkpoint:
        texts["refine.checkpoint"] = config.refine.checkpoint
    if config.retrain.enabled:
        texts["retrain.init"] = config.retrain.init
    files = {key: expand_path(text) for key, text in texts.items() if names_file(text)}
    for key, path in files.items():
        if not path.exists():
            _log.warning("jobs that run here: %s: %s: no such file", key, path)
    if "clip.model" not in files:
        from wsss.clip.load import check_names

        tag = "" if "clip.pretrained" in files else config.clip.pretrained
        check_names(config.clip.model, tag)
    if files.get("clip.model", Path()).suffix != ".json" or files["clip.model"].exists():
        _check_sizes(config, str(files.get("clip.model", config.clip.model)))
    if dino and "dino.pretrained" not in files and dino.pretrained not in NO_FILES:
        from wsss.dino.downloads import tag_weights

        tag_weights(dino.model, dino.pretrained)
    elif dino and "dino.model" not in files:
        from wsss.dino.model_config import check_model

        check_model(dino.model)
    if texts.get("retrain.init", "random") not in NO_FILES and "retrain.init" not in files:
        from wsss.retrain.weights.pretrained import check_name

        check_name(config.retrain.init, config.retrain.model)


def _check_sizes(config: Config, model: str) -> None:
    """Compare crop and numbers of blocks with the encoder, where these are known without it."""
    from wsss.clip.model_config import patch_and_depth

    patch, depth = patch_and_depth(model)
    if config.refine.trains and patch:
        config.refine.train.check_crop((patch, patch))
    blocks = {}
    if config.cams.has_affinity:
        blocks["cams.affinity.last_blocks"] = config.cams.affinity.last_blocks
    if config.refine.is_trained:
        method = config.refine.method
        blocks[f"refine.{method}.rfm_blocks"] = getattr(config.refine.options, "rfm_blocks", None)
    for key, count in blocks.items():
        if depth and count and count > depth:
            raise ValueError(f"{key} is {count}, but {model} has {depth} blocks; lower it")


def names_file(text: str) -> bool:
    """Whether a value of the configuration is the path of a weight file, here or not; else a name.

    Args:
        text: of ``clip.model``, ``clip.pretrained``, the same of ``dino``, ``refine.checkpoint`` or
            ``retrain.init``.
    """
    path = expand_path(text)
    return path.suffix in _SUFFIXES or path.is_file()
