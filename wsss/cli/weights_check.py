"""Whether weights that a configuration names exist and fit, without loading or fetching them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsss.config.clip import weights_problem
from wsss.config.cross_checks import encoder_errors
from wsss.config.errors import ConfigError
from wsss.config.method import EncoderNeed
from wsss.config.model import Config
from wsss.config.paths import expand_path

if TYPE_CHECKING:
    from wsss.clip.trunk.parts import Trunk

_log = logging.getLogger(__name__)
NO_FILES = {"random", "clip"}  # clip: those of section clip
_SUFFIXES = {".safetensors", ".pt", ".pth", ".bin", ".params", ".json"}


def check_weights(config: Config) -> None:
    """Check the names of weights of `clip`, `dino`, `refine` and `retrain`.

    A file that is not here is only logged: jobs may run elsewhere.

    Raises:
        ClipLoadError: open_clip knows no such model, or no such weights of it, or they were trained
            with another activation; or the header of their file is damaged, or does not fit the
            model.
        ConfigError: a model has no weights; or a crop, a window or a number of blocks does not fit
            the encoder.
        DinoLoadError: timm knows no such DINOv2, or no such weights of it.
        ValueError: there are no such initial weights of the segmenter, or they are of another.
        UnsupportedEncoderError: the encoder is of no family that is read here, or cannot serve the
            configured CAMs, affinity, refiner or segmenter.
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
    names_config = files.get("clip.model", Path()).suffix == ".json"
    for encoder in ("clip", "dino") if dino else ("clip",):
        model, pretrained = texts[f"{encoder}.model"], texts[f"{encoder}.pretrained"]
        if problem := weights_problem(encoder, model, pretrained):
            raise ConfigError(problem)
    if "clip.model" not in files:
        from wsss.clip.load import check_names

        tag = "" if "clip.pretrained" in files else config.clip.pretrained
        check_names(config.clip.model, tag)
    if not names_config or files["clip.model"].exists():
        model = str(files.get("clip.model", config.clip.model))
        _check_encoder(config, model, files.get("clip.pretrained"))
    if not files.keys() & {"clip.model", "clip.pretrained"}:
        from wsss.clip.model_config import check_activation

        check_activation(config.clip.model, config.clip.pretrained)
    if dino and "dino.pretrained" not in files and dino.pretrained not in NO_FILES:
        from wsss.dino.downloads import tag_weights

        tag_weights(dino.model, dino.pretrained)
    elif dino and "dino.model" not in files:
        from wsss.dino.model_config import check_model

        check_model(dino.model)
    if texts.get("retrain.init", "random") not in NO_FILES and "retrain.init" not in files:
        from wsss.retrain.weights.pretrained import check_name

        check_name(config.retrain.init, config.retrain.model)


def _check_encoder(config: Config, model: str, weights: Path | None) -> None:
    """Compare the encoder with what reads it, and with the header of a file of its weights."""
    from wsss.clip.load import check_fit
    from wsss.clip.model_config import known_config
    from wsss.clip.trunk.check import read_outline

    keywords = known_config(model)
    if weights and weights.is_file():
        check_fit(keywords, weights, f"{weights} into {model}")
    if keywords is None:
        return
    tower = read_outline(keywords, model)
    if errors := encoder_errors(config, model, tower.patch, len(tower.blocks)):
        raise ConfigError("\n".join(errors))
    _check_uses(config, model, keywords, tower)


def _check_uses(config: Config, model: str, keywords: Mapping[str, Any], tower: Trunk) -> None:
    """The refusals of the stages, before any of them runs."""
    from wsss.cams.patch_affinity import check_compares_texts
    from wsss.cams.patch_text import check_patch_text
    from wsss.clip.calibration import check_linear
    from wsss.clip.towers import check_text_config
    from wsss.clip.trunk.check import check_plain

    cams, refine = config.cams, config.refine
    needs: frozenset[EncoderNeed] = frozenset()
    propagates = cams.has_affinity and config.supervision == "tags"
    if refine.is_trained:
        needs = refine.options.encoder_needs
        propagates = propagates or refine.options.refines_cams
    if propagates and cams.affinity.uses_texts:
        check_compares_texts(tower)
    from_texts = cams.source == "patch_text" and config.supervision == "tags"
    if from_texts or "patches_and_texts" in needs:
        check_patch_text(tower)
    if "linear_attention" in needs:
        check_linear(tower.blocks)
    if "prompts" in needs:
        check_text_config(keywords, model)
    if "gradients" in needs or (config.retrain.enabled and config.retrain.uses_clip):
        check_plain(keywords, model)


def names_file(text: str) -> bool:
    """Whether a value of the configuration is the path of a weight file, here or not; else a name.

    Args:
        text: of ``clip.model``, ``clip.pretrained``, the same of ``dino``, ``refine.checkpoint`` or
            ``retrain.init``.
    """
    path = expand_path(text)
    return path.suffix in _SUFFIXES or path.is_file()
