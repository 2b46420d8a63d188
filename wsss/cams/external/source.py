"""The CAM source `external`: seeds that another project made, one file an image.

Seeds at image size are averaged over the cells of a grid, so that they are stored and read like
every other CAM. On request they are also spread along the attention of the configured encoder, as
`grad_cam` is; for that they are averaged over its patches.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from wsss.artifacts.digest import digest_file
from wsss.cams.affinity import refine_as_configured
from wsss.cams.external.pickle_reader import SeedError
from wsss.cams.external.seed_files import Seeds, read_seeds
from wsss.cams.sources import CamMaps
from wsss.clip.input import EncoderInput
from wsss.compute.threads import one_thread_each, ordered_map
from wsss.config.base import Section
from wsss.config.model import Config
from wsss.config.paths import expand_path
from wsss.data.manifest import Sample

_SHOWN = 5
_log = logging.getLogger(__name__)


class ExternalSource:
    """Seeds of a data set.

    Args:
        config: cams; with the affinity also data, clip and compute.
        cache: folder for downloaded weights.
        known: ids of all images of the run; seeds of others are told of. None: not looked for.

    Raises:
        SeedError: the folder does not exist.
    """

    def __init__(self, config: Config, cache: Path, known: Collection[str] | None = None) -> None:
        self._known = known
        self._settings, self._cams = config.cams.external, config.cams
        self._folder = expand_path(self._settings.path)
        if not self._folder.is_dir():
            raise SeedError(
                f"{self._folder}: no such folder; cams.external.path must name the seeds' folder"
            )
        self._input: EncoderInput | None = None
        self.sections: Mapping[str, Section] = {"external": self._settings}
        self.weights: Mapping[str, str] = {}
        if config.cams.has_affinity:
            self._input = EncoderInput(config, cache)
            self.sections = {"clip": config.clip, "cams": config.cams}
            self.weights = {"clip": self._input.clip.digest}

    def key(self, sample: Sample) -> str:
        """Digest of the seed file; empty where there is none, which `maps` reports."""
        path = self._path(sample)
        return digest_file(path) if path.is_file() else ""

    def maps(self, samples: Sequence[Sample]) -> Iterator[CamMaps]:
        """See `CamSource.maps`. All seeds are read and checked before the first map is given.

        Raises:
            SeedError: naming all seeds that are missing, unreadable or of another size.
            ValueError: images are too large for the encoder's attention.
        """
        with one_thread_each() as threads:
            checked = ordered_map(self._check, samples, threads=threads)
            self._report(list(checked), len(samples))
            if self._input is not None:
                self._input.check_sizes(samples)
                if self._input.encoder.device.type != "cpu":
                    threads = 1
            yield from ordered_map(self._one, samples, threads=threads)

    def _path(self, sample: Sample) -> Path:
        return self._folder / f"{sample.id}.{self._settings.layout}"

    def _read(self, sample: Sample) -> Seeds:
        size = (sample.height, sample.width)
        return read_seeds(
            self._path(sample),
            self._settings.layout,
            sample.tags,
            size,
            first_class=self._settings.first_class,
        )

    def _check(self, sample: Sample) -> tuple[str, Seeds | Exception]:
        """The seeds without their maps, or what is wrong with them."""
        try:
            seeds = self._read(sample)
        except (ValueError, OSError, RuntimeError) as error:
            return sample.id, error
        return sample.id, Seeds(seeds.maps[:, :0, :0], None, seeds.absent, seeds.extra)

    def _report(self, checked: Sequence[tuple[str, Seeds | Exception]], count: int) -> None:
        wrong = [str(found) for _, found in checked if isinstance(found, Exception)]
        others = self._others()
        more = f"{len(others)} files there are of no image of the run:\n  {_first(others)}"
        if wrong:
            raise SeedError(
                f"{self._folder}: {len(wrong)} of {count} seeds cannot be used "
                f"(expected one <id>.{self._settings.layout} an image):\n  {_first(wrong)}"
                + (f"\n{more}" if others else "")
            )
        if others:
            _log.warning("%s: %s", self._folder, more)
        fine = [(name, found) for name, found in checked if isinstance(found, Seeds)]
        say: dict[str, Callable[[Seeds], tuple[int, ...]]] = {
            "lack a seed for a tag of their image, which stays empty": lambda seeds: seeds.absent,
            "hold a class that is no tag of their image, which is left out": lambda s: s.extra,
        }
        for what, of in say.items():
            names = [f"{name}: class {', '.join(map(str, of(s)))}" for name, s in fine if of(s)]
            if names:
                _log.warning("%d of %d seeds %s\n  %s", len(names), count, what, _first(names))

    def _others(self) -> list[str]:
        """Seed files of no image, which a wrong list or folder leaves over."""
        if self._known is None:
            return []
        found = self._folder.rglob(f"*.{self._settings.layout}")
        ids = (path.relative_to(self._folder).with_suffix("").as_posix() for path in found)
        return sorted(set(ids) - set(self._known))

    def _one(self, sample: Sample) -> CamMaps:
        seeds = self._read(sample)
        stride = self._settings.stride
        grid = (-(-sample.height // stride), -(-sample.width // stride))
        refined = None if self._input is None else self._spread(self._input, sample, seeds)
        return CamMaps(
            sample,
            seeds.on_grid(grid).half().numpy(),
            None if refined is None else refined.half().cpu().numpy(),
        )

    @torch.inference_mode()
    def _spread(
        self, inputs: EncoderInput, sample: Sample, seeds: Seeds
    ) -> Float[Tensor, "classes rows columns"]:
        """The seeds on the patch grid, spread along the encoder's attention."""
        encoder = inputs.encoder
        blocks = range(encoder.depth - self._cams.affinity.last_blocks, encoder.depth)
        encoding = encoder.run(inputs.pixels(sample)[None], attention_sum_of=blocks)
        assert encoding.attention_sum is not None
        maps = seeds.on_grid(encoding.grid).to(encoder.device)
        owner = torch.zeros(len(maps), dtype=torch.long, device=encoder.device)
        mean = encoding.attention_sum / len(blocks)
        return refine_as_configured(mean, maps, owner, self._cams)


def _first(lines: Sequence[str]) -> str:
    more = [f"… and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
    return "\n  ".join([*lines[:_SHOWN], *more])
