"""Load a DINOv2: by name and tag, from sizes in a file, with weights of the release."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from wsss.artifacts.digest import digest_json
from wsss.clip.errors import ClipLoadError
from wsss.clip.weights import misfit, not_finite, read_weights, weights_digest
from wsss.compute.device import pick_device
from wsss.config.clip import DinoConfig, weight_file, weights_problem
from wsss.config.paths import expand_path
from wsss.dino.downloads import download_folder, tag_weights
from wsss.dino.encoder import DinoEncoder
from wsss.dino.errors import DinoLoadError
from wsss.dino.model_config import build
from wsss.dino.naming import in_timm_naming

_log = logging.getLogger(__name__)
RANDOM = "random"


def configured(
    config: DinoConfig, cache: Path | None = None, *, device: str = "auto"
) -> DinoEncoder:
    """The encoder of the section ``dino``.

    Args:
        cache: folder for downloaded weights; None: the hub's own.
        device: of the encoder; ``auto`` picks one.

    Raises:
        DinoLoadError: the model cannot be built or its weights do not fit.
    """
    model = str(expand_path(config.model)) if config.model.endswith(".json") else config.model
    network, digest = load_dino(model, config.pretrained, cache_dir=download_folder(cache))
    precision = config.precision
    return DinoEncoder(network, digest=digest, precision=precision, device=pick_device(device))


def load_dino(
    model: str, pretrained: str, *, cache_dir: Path | None = None
) -> tuple[nn.Module, str]:
    """Build a DINOv2 and load its weights.

    Args:
        model: see `wsss.dino.model_config.build`.
        pretrained: a tag of the named model (``lvd142m``), a weight file (safetensors, or a state
            dict that ``torch.load(weights_only=True)`` accepts) with the names of the release, of
            transformers or of timm, or ``random`` (seeded; tests).

    Returns:
        timm's model in evaluation mode, frozen, float32, on the CPU; and a sha256 over its weights
        and sizes.

    Raises:
        DinoLoadError: unknown name or tag, unreadable file, weights that do not fit the model
            or are not finite.
    """
    if problem := weights_problem("dino", model, pretrained):
        raise DinoLoadError(f"{model}: {problem}")
    built = build(model)
    if pretrained == RANDOM:
        _log.warning("dino.pretrained is random: %s is not trained", model)
    else:
        file = _weight_file(model, pretrained, cache_dir)
        try:
            weights = read_weights(file)
        except ClipLoadError as error:
            raise DinoLoadError(f"dino.pretrained: {error}") from None
        built.load_state_dict(_fitting(built, weights, f"{file} into {model}"))
        if problem := not_finite(weights):
            raise DinoLoadError(f"dino.pretrained: {file}: {problem}")
    built.eval().requires_grad_(False)
    heads = [block.attn.num_heads for block in built.blocks]  # type: ignore[union-attr]
    return built, digest_json([weights_digest(built.state_dict()), heads])


def _weight_file(model: str, pretrained: str, cache_dir: Path | None) -> Path:
    """The file that ``pretrained`` names, downloaded if it is a tag and not here."""
    if path := weight_file(pretrained):
        return path
    weights = tag_weights(model, pretrained, cache_dir)
    return weights.path or weights.fetch()


def _fitting(built: nn.Module, weights: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """The weights in timm's naming.

    Raises:
        DinoLoadError: they do not fit the model.
    """
    state, expected = in_timm_naming(weights), built.state_dict()
    if problem := misfit(state, expected):
        raise DinoLoadError(f"{where}: {problem}")
    return state
