"""Weights that open_clip knows by tag: their file, its address, and whether it is here.

Without a network, the client of the Hugging Face hub repeats its requests for a minute, and says
nothing of what to fetch. So a file that is here is read without a request, and one that is not is
asked for once before open_clip downloads it.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from wsss._compat import import_open_clip
from wsss.artifacts.digest import digest_file
from wsss.clip.errors import ClipLoadError
from wsss.errors import WsssError

_TIMEOUT = 10  # seconds
_SHA256 = re.compile("[0-9a-f]{64}")
_BIN = "open_clip_pytorch_model.bin"


@dataclass(frozen=True)
class TagWeights:
    """The weights of a model by a tag."""

    model: str
    tag: str
    repository: str
    """On the hub; empty for weights that are elsewhere."""
    names: tuple[str, ...]
    """Files of the repository that may hold them, the preferred one first."""
    url: str
    """Another address of them, or the only one; may be empty."""
    cache_dir: Path | None = None
    """Where open_clip stores downloads; None for its usual place."""
    setting: ClassVar[str] = "clip.pretrained (--weights)"
    """What names them: the key of the configuration, and the option of commands that have one."""
    error: ClassVar[type[WsssError]] = ClipLoadError
    """Of weights that cannot be had."""

    @property
    def size(self) -> str:
        """About how large the file is, in brackets; empty if unknown."""
        return size_text(self.model)

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where the file can be fetched by hand, best first."""
        hub = "https://huggingface.co"
        on_hub = [f"{hub}/{self.repository}/resolve/main/{name}" for name in self.names]
        return (*(on_hub[:1] if self.repository else ()), *([self.url] if self.url else ()))

    @property
    def path(self) -> Path | None:
        """The file on this machine, if it is there."""
        if not self.repository:
            folder = self.cache_dir or Path("~/.cache/clip").expanduser()
            file = folder / self.url.rpartition("/")[2]
            return file if file.is_file() else None
        from huggingface_hub import try_to_load_from_cache

        for name in self.names:
            cached = try_to_load_from_cache(self.repository, name, cache_dir=self.cache_dir)
            if isinstance(cached, str):
                return Path(cached)
        return None

    def fetch(self) -> Path:
        """Download the file, which resumes an interrupted download, and check what is known of it.

        Raises:
            ClipLoadError: it cannot be reached, or is damaged. Subclasses have their own `error`.
        """
        self.check_reachable()
        try:
            file = self._download(None if self.cache_dir is None else str(self.cache_dir))
        except (OSError, RuntimeError) as error:
            raise self.error(f"{self.model} with pretrained {self.tag!r}: {error}") from None
        expected = file.resolve().name  # the hub's cache calls large files by their sha256
        if _SHA256.fullmatch(expected) and digest_file(file) != expected:
            raise self.error(f"{file}: its sha256 is not {expected}; delete it and fetch again")
        return file

    def _download(self, cache_dir: str | None) -> Path:
        pretrained = import_open_clip().pretrained
        config = {"hf_hub": f"{self.repository}/"} if self.repository else {"url": self.url}
        if self.repository and _BIN not in self.names:
            config["hf_hub"] += self.names[-1]
        return Path(pretrained.download_pretrained(config, cache_dir=cache_dir))

    def check_reachable(self) -> None:
        """Ask the hub for the file once.

        Raises:
            ClipLoadError: no answer; the message says what to fetch and where to put it. Subclasses
                have their own `error`.
        """
        if not self.repository:
            return  # open_clip's own download fails at once
        from huggingface_hub import get_hf_file_metadata, hf_hub_url
        from huggingface_hub.errors import HfHubHTTPError

        try:
            get_hf_file_metadata(hf_hub_url(self.repository, self.names[0]), timeout=_TIMEOUT)
        except HfHubHTTPError:
            return  # there is a network; of what is missing there, open_clip tells more
        except Exception as error:  # whatever the hub's client raises
            raise self.error(self.unreachable(str(error))) from None

    def unreachable(self, reason: str) -> str:
        """What to do where the file cannot be fetched."""
        reason = " ".join(reason.split())[:200]
        name = self.addresses[0].rpartition("/")[2]
        return (
            f"{self.model} with pretrained {self.tag!r}: {name}{self.size} is not on "
            f"this machine, and its address cannot be reached ({reason}). Where there is a "
            f"network, fetch {' or '.join(self.addresses)}; put the file anywhere here, e.g. at "
            f"weights/{name}, and set {self.setting} to its path"
        )


def download_folder(cache: Path | None) -> Path | None:
    """Where stages store the downloads of open_clip, below their cache."""
    return None if cache is None else cache / "open_clip"


def tag_weights(model: str, tag: str, cache_dir: Path | None = None) -> TagWeights | None:
    """What open_clip knows about weights by a tag; None if it knows no such weights.

    Args:
        model: name of an open_clip model.
    """
    config: Mapping[str, Any] = import_open_clip().pretrained.get_pretrained_cfg(model, tag) or {}
    repository, _, name = str(config.get("hf_hub") or "").rpartition("/")
    url = str(config.get("url") or "")
    if not (repository or url):
        return None
    return TagWeights(model, tag, repository, _names(name), url, cache_dir)


def tag_preprocess(model: str) -> Mapping[str, Any]:
    """The preparation of images that all weights of a named model share; empty if they differ.

    open_clip knows it by tag alone, while a weight file has none: SigLIP's differs from CLIP's.

    Args:
        model: name of an open_clip model.
    """
    open_clip = import_open_clip()
    tags = open_clip.list_pretrained_tags_by_model(model)
    configs = [open_clip.pretrained.get_pretrained_cfg(model, tag) or {} for tag in tags]
    kinds = {(config.get("mean"), config.get("std")) for config in configs}
    mean, std = kinds.pop() if len(kinds) == 1 else (None, None)
    return {"mean": mean, "std": std}


@contextlib.contextmanager
def at_hand(weights: TagWeights | None) -> Iterator[None]:
    """While open_clip loads weights: without any request if their file is on this machine.

    Raises:
        ClipLoadError: the file is not here and cannot be reached.
    """
    if weights is None or not weights.repository:
        yield
        return
    if weights.path is None:
        weights.check_reachable()
        yield
        return
    from huggingface_hub import constants

    offline = constants.HF_HUB_OFFLINE
    config = import_open_clip().get_model_config(weights.model)
    # The hub may have to be asked for the config of a text tower that is its own.
    constants.HF_HUB_OFFLINE = offline or not config["text_cfg"].get("hf_model_name")
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = offline


def size_text(model: str) -> str:
    """`` (about 599 MB)``: the parameters of an open_clip model in float32; empty if unknown."""
    from wsss._compat.outline import outlines  # torch

    open_clip = import_open_clip()
    config = open_clip.get_model_config(model)
    if not config or config.get("custom_text") or config["text_cfg"].get("hf_model_name"):
        return ""
    with outlines():
        outline = open_clip.CLIP(**config)
    return f" (about {4 * sum(p.numel() for p in outline.parameters()) / 1e6:.0f} MB)"


def _names(name: str) -> tuple[str, ...]:
    """The files that open_clip looks for, in its order."""
    name = name or _BIN
    if name == _BIN:
        return ("open_clip_model.safetensors", _BIN)
    stem, _, suffix = name.rpartition(".")
    return (f"{stem}.safetensors", name) if suffix in {"bin", "pth"} else (name,)
