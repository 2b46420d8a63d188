"""What an artefact was made of, and the key under which equal work is recognised."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterable
from importlib import metadata
from typing import Any

from pydantic import BaseModel, ConfigDict

from wsss.artifacts.code_digest import code_digest
from wsss.artifacts.digest import digest_json
from wsss.config.base import Section

_PACKAGES = (
    "torch",
    "open_clip_torch",
    "numpy",
    "pillow",
    "h5py",
    "pydensecrf2",
    "opencv-python",
    "onedl-mmsegmentation",
)


class Provenance(BaseModel):
    """What an artefact was made of; carried by every artefact."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stage: str
    config: dict[str, Any]
    """The effective sections that the stage reads."""
    seed: int
    code: str
    """Digest of the source files that the stage imports."""
    packages: dict[str, str]
    weights: dict[str, str] = {}
    """sha256 of each weight file that was used."""
    inputs: dict[str, str] = {}
    """Digest of each artefact that was read."""

    def key(self) -> str:
        """Equal for equal work: everything but the inputs, which each item adds for itself."""
        return digest_json(self.model_dump(exclude={"inputs"}))

    def training_key(self) -> str:
        """Equal for trainings that learn the same: everything, the inputs as well."""
        return digest_json(self.model_dump())


def provenance(
    stage: str,
    *,
    entry: Iterable[str],
    sections: dict[str, Section],
    seed: int,
    weights: dict[str, str] | None = None,
    inputs: dict[str, str] | None = None,
) -> Provenance:
    """Collect the provenance of a stage.

    Args:
        stage: its name.
        entry: its entry modules (see `wsss.artifacts.code_digest`).
        sections: the configuration sections that it reads, by name.
        seed: the run's seed.
        weights: sha256 of the weight files that it uses, by name.
        inputs: digests of the artefacts that it reads, by name.
    """
    return Provenance(
        stage=stage,
        config={name: section.model_dump(mode="json") for name, section in sections.items()},
        seed=seed,
        code=code_digest(entry),
        packages=package_versions(),
        weights=weights or {},
        inputs=inputs or {},
    )


@functools.cache
def package_versions() -> dict[str, str]:
    """Versions of Python and of the packages that can change a result."""
    versions = {"python": ".".join(map(str, sys.version_info[:3]))}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions
