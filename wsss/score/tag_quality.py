"""How far tags that differ on purpose (``tag_noise``) agree with the given ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from wsss.config.data import TagNoiseConfig
from wsss.data.manifest import Manifest
from wsss.score.metrics.counting import ProductError


class TagQuality(BaseModel):
    """Tags that a run used, compared with the given ones; over the splits that were changed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    noise: dict[str, Any]
    """The section ``tag_noise``, as far as it plays a part."""
    images: int
    """That have given tags, or were given others."""
    left_out: int
    """Of these: without a tag, and therefore not trained on."""
    precision: float | None
    """Share of the tags used that are given ones; None: no tag is used."""
    recall: float | None
    """Share of the given tags that are used; None: none is given."""

    @property
    def cause(self) -> str:
        """``CLIP's tags, 20 % removed, 10 % of the images with a wrong one``."""
        parts = ["CLIP's tags" if self.noise["source"] == "clip" else "given tags"]
        if dropped := self.noise["dropped"]:
            parts.append(f"{100 * dropped:g} % removed")
        if added := self.noise["added"]:
            parts.append(f"a wrong one added to {100 * added:g} % of the images")
        return ", ".join(parts)

    @property
    def text(self) -> str:
        """One sentence for people."""
        splits = " and ".join(self.noise["splits"])
        left_out = f"; {self.left_out} images left out, without a tag" if self.left_out else ""
        precision, recall = (
            "none" if share is None else f"{100 * share:.1f} %"
            for share in (self.precision, self.recall)
        )
        return (
            f"TAGS CHANGED ON PURPOSE in {splits}: {self.cause}; against the given tags precision "
            f"{precision}, recall {recall} ({self.images} images{left_out})."
        )


def tag_quality(
    manifest_dir: Path, manifest: Manifest, given: Manifest | None, noise: TagNoiseConfig
) -> TagQuality | None:
    """Compare the tags of a manifest with the given ones; None where they are the given ones.

    Args:
        manifest_dir: where both lie, for messages.
        manifest: the images with the tags that were used.
        given: with the tags of the data set, see `load_given`.
        noise: ``tag_noise``, which must say whether they differ.

    Raises:
        ProductError: the manifest has other tags although nothing of it is configured, or the
            other way round.
    """
    if (given is not None) != noise.enabled:
        has, says = ("has", "no") if given else ("has not", "such")
        raise ProductError(
            f"{manifest_dir}: {has} tags that differ on purpose, tag_noise asks for {says} tags; "
            "pass the folder of `wsss tag-noise` where the configuration has tag_noise, else that "
            "of `wsss ingest`"
        )
    if given is None:
        return None
    used = {(s.split, s.id): set(s.tags) for s in manifest if s.split in noise.splits}
    expected = {(s.split, s.id): set(s.tags) for s in given if s.split in noise.splits}
    common = sum(len(tags & used.get(image, set())) for image, tags in expected.items())
    in_use, in_all = sum(map(len, used.values())), sum(map(len, expected.values()))
    return TagQuality(
        noise=noise.effective(),
        images=len(expected),
        left_out=len(expected) - len(used),
        precision=common / in_use if in_use else None,
        recall=common / in_all if in_all else None,
    )
