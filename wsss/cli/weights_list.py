"""Weights by name, or those that a configuration names: whether they are here; downloads."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from wsss.cli.weights_check import NO_FILES, names_file
from wsss.config.model import Config
from wsss.config.paths import expand_path


@dataclass(frozen=True)
class ListedWeights:
    """Weights of one name or path."""

    name: str
    key: str
    """Key of the configuration that names them."""
    path: Path | None
    """The file, if it is on this machine."""
    addresses: tuple[str, ...]
    """Where it can be fetched by hand, best first; none of a file that a user named by its path."""
    fetch: Callable[[], Path] | None
    """Downloads it; None of such a file."""

    def __str__(self) -> str:
        """One line for the screen."""
        if self.path is not None:
            return f"here     {self.name}: {self.path} ({self.path.stat().st_size / 1e6:.0f} MB)"
        return f"missing  {self.name}: {self.remedy}"

    @property
    def remedy(self) -> str:
        """How to get it where it is missing."""
        if not self.fetch:
            return f"no such file; {self.key} names it"
        source = " or ".join(self.addresses)
        return f"`wsss weights fetch {self.name}`, or fetch {source} and set {self.key} to its path"


def weights_by_name(name: str, cache: Path) -> ListedWeights:
    """Weights by ``MODEL/TAG`` of open_clip or of DINOv2, or by a name that ``retrain.init`` takes.

    Args:
        cache: of the stages, which holds the downloads of open_clip.

    Raises:
        ClipLoadError: open_clip knows no such model, or no such weights of it.
        DinoLoadError: timm knows no such weights of a DINOv2.
        ValueError: nothing has this name.
    """
    model, slash, tag = name.rpartition("/")
    if slash and "dinov2" in model:
        return _of_dino(model, tag, cache)
    if slash:
        return _of_clip(model, tag, cache)
    from wsss.retrain.weights.pretrained import PRETRAINED

    if name not in PRETRAINED:
        raise ValueError(
            f"{name!r} is no name of weights; expected MODEL/TAG of open_clip, e.g. "
            "ViT-B-16-quickgelu/openai, of a DINOv2 in timm, e.g. "
            f"vit_small_patch14_dinov2/lvd142m, or one of {', '.join(PRETRAINED)}"
        )
    return _of_backbone(name)


def weights_of(configs: Iterable[Config], cache: Path) -> list[ListedWeights]:
    """The weights that configurations name, each once.

    Args:
        cache: see `weights_by_name`.

    Raises:
        ClipLoadError: open_clip knows no such model, or no such weights of it.
        DinoLoadError: timm knows no such weights of a DINOv2.
        ValueError: there are no such initial weights of the segmenter.
    """
    listed: dict[tuple[str, str], ListedWeights] = {}
    for config in configs:
        clip, init = config.clip, config.retrain.init if config.retrain.enabled else ""
        pairs = {"clip.pretrained": clip.pretrained, "refine.checkpoint": config.refine.checkpoint}
        if "dino" in config.encoders_besides_clip:
            pairs["dino.pretrained"] = config.dino.pretrained
        for key, text in (*pairs.items(), ("retrain.init", init)):
            if not text or text in NO_FILES:
                continue
            if names_file(text):
                path = expand_path(text)
                file = path if path.is_file() else None
                listed["", text] = ListedWeights(str(path), key, file, (), None)
            elif key == "clip.pretrained":  # models share tags
                listed[clip.model, text] = _of_clip(clip.model, text, cache)
            elif key == "dino.pretrained":
                listed[config.dino.model, text] = _of_dino(config.dino.model, text, cache)
            else:
                listed["", text] = weights_by_name(text, cache)
    return list(listed.values())


def _of_clip(model: str, tag: str, cache: Path) -> ListedWeights:
    from wsss.clip.downloads import download_folder, tag_weights
    from wsss.clip.load import check_names

    check_names(model, tag)
    weights = tag_weights(model, tag, download_folder(cache))
    if weights is None:
        raise ValueError(f"{model}/{tag}: open_clip knows no address of these weights")
    name, key = f"{model}/{tag}", "clip.pretrained"
    return ListedWeights(name, key, weights.path, weights.addresses, weights.fetch)


def _of_dino(model: str, tag: str, cache: Path) -> ListedWeights:
    from wsss.dino.downloads import download_folder, tag_weights

    weights = tag_weights(model, tag, download_folder(cache))
    name, key = f"{model}/{tag}", "dino.pretrained"
    return ListedWeights(name, key, weights.path, weights.addresses, weights.fetch)


def _of_backbone(name: str) -> ListedWeights:
    from wsss.retrain.weights.pretrained import PRETRAINED, fetch

    weights = PRETRAINED[name]

    def download() -> Path:
        return fetch(name, weights.model, progress=True)

    path = weights.path if weights.path.is_file() else None
    return ListedWeights(name, "retrain.init", path, (weights.url(),), download)
