"""ImageNet weights of backbones by name: their addresses, and their files on this machine.

Addresses are not written down here; they are read from the packages that publish the weights:
torchvision, timm, and mmsegmentation's stock configs. None of those says a whole sha256. By
torch.hub's convention, which OpenMMLab's `tools/misc/publish_model.py` shares, the eight digits
before the suffix of a file's name are the beginning of its sha256, and that beginning is checked.
For ResNet38 there is no public address that we know to last: its weights are passed as a file.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from wsss.artifacts.digest import digest_file
from wsss.artifacts.errors import ArtifactError
from wsss.retrain.architecture import STOCK
from wsss.retrain.mm import CONFIGS, MmConfig, get_external_models

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pretrained:
    """Weights that can be downloaded."""

    model: str
    """The network whose backbone they fit, as in `retrain.model`."""
    url: Callable[[], str]
    """Their address, from the package that publishes them."""

    @property
    def beginning(self) -> str:
        """How the sha256 of the file begins, hexadecimal; empty if its name does not say."""
        match = re.search(r"-([0-9a-f]{8,64})\.\w+$", self.url())
        return match[1] if match else ""

    @property
    def path(self) -> Path:
        """Where torch.hub stores the file, whether it is there or not."""
        return Path(torch.hub.get_dir()) / "checkpoints" / self.url().rsplit("/", 1)[-1]


def fetch(name: str, model: str, *, progress: bool = False) -> Path:
    """The file of named weights, downloaded through torch.hub into its cache if it is not there.

    Args:
        name: a key of `PRETRAINED`.
        model: `retrain.model`.
        progress: show how much is downloaded.

    Raises:
        ValueError: they are for another network.
        ArtifactError: they cannot be downloaded, or the file is not what its name says.
    """
    check_name(name, model)
    chosen = PRETRAINED[name]
    url = chosen.url()
    path = chosen.path
    if not path.is_file():
        _log.info("fetching %s from %s", name, url)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(
                url, str(path), hash_prefix=chosen.beginning or None, progress=progress
            )
        except (OSError, RuntimeError) as error:
            raise ArtifactError(
                f"retrain.init: {name} cannot be downloaded from {url} ({error}); "
                f"fetch it where there is a network and put it at {path}, or anywhere and set "
                "retrain.init to its path"
            ) from None
    digest = digest_file(path)
    if not digest.startswith(chosen.beginning):
        raise ArtifactError(
            f"{path}: its sha256 begins {digest[: len(chosen.beginning)]}, expected "
            f"{chosen.beginning}, as its name says; delete it, so that it is fetched again, or, if "
            "you trust it, set retrain.init to its path"
        )
    return path


def check_name(name: str, model: str) -> None:
    """Check that there are weights of this name for a network.

    Args:
        name: see `PRETRAINED`.
        model: `retrain.model`.

    Raises:
        ValueError: there are none, or they are for another network.
    """
    fault = "is neither a known name nor a file"
    if chosen := PRETRAINED.get(name):
        if chosen.model == model:
            return
        fault = f"fits {chosen.model}, but retrain.model is {model}"
    expected = ", ".join(["random", *names_for(model)])
    raise ValueError(
        f"retrain.init: {name} {fault}; expected {expected} or the path of a checkpoint"
    )


def names_for(model: str) -> list[str]:
    """Names of the weights that fit a network's backbone."""
    return [name for name, chosen in PRETRAINED.items() if chosen.model == model]


def _of_stock(model: str) -> Pretrained:
    def url() -> str:
        stock = MmConfig.fromfile(CONFIGS / STOCK[model]).model
        address = stock.get("pretrained") or stock.backbone.init_cfg.checkpoint
        prefix = "open-mmlab://"
        if address.startswith(prefix):
            address = get_external_models()[address.removeprefix(prefix)]
        return str(address)

    return Pretrained(model, url)


def _torchvision_resnet101() -> str:
    from torchvision.models import ResNet101_Weights

    return str(ResNet101_Weights.IMAGENET1K_V1.url)


def _timm_deit() -> str:
    import timm

    config = timm.get_pretrained_cfg("deit_small_patch16_224")
    assert config is not None, "timm knows DeiT-S"
    return str(config.url)


PRETRAINED: dict[str, Pretrained] = {
    **{f"mit-b{size}": _of_stock(f"segformer-b{size}") for size in range(6)},
    "resnet50-v1c": _of_stock("deeplabv3plus-r50"),
    "resnet101-v1c": _of_stock("deeplabv3plus-r101"),
    "resnet101": Pretrained("deeplabv2-resnet101", _torchvision_resnet101),
    "deit-s": Pretrained("segmenter-deit-s", _timm_deit),
}
"""All of ImageNet-1k, by the name that `retrain.init` takes."""
