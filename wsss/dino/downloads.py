"""Weights of DINOv2 that timm knows by tag: their file, its address, and whether it is here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from wsss._compat import import_timm
from wsss._compat.outline import outlines
from wsss.clip.downloads import TagWeights
from wsss.dino.errors import DinoLoadError
from wsss.dino.model_config import build, check_model

_NAMES = ("model.safetensors", "pytorch_model.bin")  # timm's, in its order


@dataclass(frozen=True)
class DinoWeights(TagWeights):
    """The weights of a model by a tag; on timm's hub page, or in the release's own file."""

    setting = "dino.pretrained"
    error = DinoLoadError

    def _download(self, cache_dir: str | None) -> Path:
        from huggingface_hub import hf_hub_download

        return Path(hf_hub_download(self.repository, self.names[0], cache_dir=cache_dir))

    @property
    def size(self) -> str:
        """See `TagWeights.size`."""
        with outlines():
            outline = build(self.model)
        return f" (about {4 * sum(p.numel() for p in outline.parameters()) / 1e6:.0f} MB)"


def download_folder(cache: Path | None) -> Path | None:
    """Where stages store these downloads, below their cache."""
    return None if cache is None else cache / "dino"


def tag_weights(model: str, tag: str, cache_dir: Path | None = None) -> DinoWeights:
    """What timm knows about weights by a tag.

    Args:
        model: see `wsss.dino.model_config.MODELS`.
        tag: of its weights (``lvd142m``).
        cache_dir: where downloads are stored; None: the hub's own folder.

    Raises:
        DinoLoadError: there is no such model, or no such weights of it.
    """
    check_model(model)
    timm = import_timm()
    tags = [name.partition(".")[2] for name in timm.list_pretrained(f"{model}.*")]
    if tag not in tags:
        raise DinoLoadError(
            f"dino.pretrained: timm has no weights {tag!r} of {model}, and there is no such file; "
            f"it has {', '.join(tags)}"
        )
    config = timm.get_pretrained_cfg(f"{model}.{tag}")
    return DinoWeights(model, tag, str(config.hf_hub_id), _NAMES, str(config.url), cache_dir)
