"""The CAM source `external`: CAMs of another project (seeds), one file per image.

Seeds at image size are averaged over the cells of a grid, so that they are stored and read like
every other CAM. On request they are also propagated between the patches of the configured encoder,
as those of `grad_cam`; for that they are averaged over its patches.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from wsss.artifacts.digest import digest_file
from wsss.cams.affinity import propagate
from wsss.cams.external.pickle_reader import SeedError
from wsss.cams.external.seed_files import ExternalCams, read_external_cams
from wsss.cams.maps import CamMaps, pack_classes
from wsss.cams.other_features import OtherFeatures, weights_of
from wsss.cams.patch_affinity import pair_factor, pair_weights, patch_features
from wsss.clip.encoder import ClipEncoder
from wsss.clip.input import EncoderInput
from wsss.clip.text.embeddings import TextBank
from wsss.compute.packed_rows import to_device
from wsss.compute.threads import one_thread_each, ordered_map
from wsss.config.cams import CamsConfig, ExternalConfig
from wsss.config.paths import expand_path
from wsss.data.counted import counted, first_names
from wsss.data.manifest import Sample

_SHOWN = 8
_log = logging.getLogger(__name__)
_Loaded = tuple[Sample, ExternalCams, Float[Tensor, "3 height width"] | None]
"""An image with its seeds, and its pixels where the encoder needs them."""


def seed_files(external: ExternalConfig, images: Iterable[str]) -> dict[str, Path]:
    """The seed file of each image; it need not be there."""
    folder = expand_path(external.path)
    return {image: folder / f"{image}.{external.layout}" for image in images}


class ExternalSource:
    """Seeds of a data set.

    Args:
        cams: folder and layout, and the affinity.
        inputs: the encoder between whose patches seeds are propagated; None without the affinity.
        ids: of all images of the run; seeds of others are reported. None: not checked.
        bank: texts of all classes and backgrounds, for an affinity that compares with them.
        words: digest of what they are made from.
        other: see `wsss.cams.clip_sources.clip_cams`.

    Raises:
        SeedError: the folder does not exist.
    """

    def __init__(
        self,
        cams: CamsConfig,
        inputs: EncoderInput | None = None,
        ids: Collection[str] | None = None,
        bank: TextBank | None = None,
        words: str = "",
        other: OtherFeatures | None = None,
    ) -> None:
        self._bank, self._words, self._other = bank, words, other
        self._cams, self._settings, self._input, self._ids = cams, cams.external, inputs, ids
        self._folder = expand_path(self._settings.path)
        if not self._folder.is_dir():
            raise SeedError(
                f"{self._folder}: no such folder; cams.external.path must name that of the CAMs"
            )
        self.weights: Mapping[str, str] = {} if inputs is None else weights_of(inputs, other)

    def key(self, sample: Sample) -> str:
        """Digest of the seed file, and the words; empty without a file, which `maps` reports."""
        path = self._path(sample)
        return digest_file(path) + self._words if path.is_file() else ""

    def maps(self, samples: Sequence[Sample]) -> Iterator[CamMaps]:
        """The maps of the samples, in their order, after all seeds were read and checked.

        Raises:
            SeedError: naming all files that are missing, unreadable or of another size; or the
                classes are numbered from elsewhere.
            ValueError: images are too large for the encoder's attention.
        """
        with one_thread_each() as threads:
            checked = ordered_map(self._check, samples, threads=threads)
            self._report(list(checked), samples)
            if self._input is not None:
                self._input.check_sizes(samples)
                if self._input.encoder.device.type != "cpu":  # which is used by this thread alone
                    yield from map(self._maps, ordered_map(self._load, samples, threads=threads))
                    return
            yield from ordered_map(lambda s: self._maps(self._load(s)), samples, threads=threads)

    def _path(self, sample: Sample) -> Path:
        return seed_files(self._settings, [sample.id])[sample.id]

    def _read(self, sample: Sample) -> ExternalCams:
        return read_external_cams(
            self._path(sample),
            self._settings.layout,
            sample.tags,
            (sample.height, sample.width),
            first_class=self._settings.first_class,
        )

    def _check(self, sample: Sample) -> tuple[str, ExternalCams | Exception]:
        """The seeds without their maps, or the error that they raise."""
        try:
            seeds = self._read(sample)
        except (ValueError, OSError, RuntimeError) as error:
            return sample.id, error
        none = np.zeros((0, 0, 0), np.float32)  # a view would keep the maps in memory
        return sample.id, ExternalCams(none, None, seeds.absent, seeds.extra)

    def _report(
        self, checked: Sequence[tuple[str, ExternalCams | Exception]], samples: Sequence[Sample]
    ) -> None:
        errors = {id_: str(result) for id_, result in checked if isinstance(result, Exception)}
        unused = self._unused_files()
        unused_message = (
            f"{counted(len(unused), 'file')} of no image of the run:\n  {_first(unused)}"
        )
        if errors:
            missing = {s.id: self._path(s).name for s in samples if not self._path(s).is_file()}
            lines = [f"{first_names(list(missing.values()))}: no such file"] if missing else []
            lines += [text for id_, text in errors.items() if id_ not in missing]
            raise SeedError(
                f"{self._folder}: {len(errors)} of {len(samples)} files cannot be used "
                f"(expected one <id>.{self._settings.layout} per image):\n  {_first(lines)}"
                + (f"\n{unused_message}" if unused else "")
            )
        self._check_numbers(
            (set(sample.tags), set(cams.absent), set(cams.extra))
            for sample, (_, cams) in zip(samples, checked, strict=True)
            if isinstance(cams, ExternalCams) and sample.tags
        )
        if unused:
            _log.warning("%s: %s", self._folder, unused_message)
        messages: dict[str, Callable[[ExternalCams], tuple[int, ...]]] = {
            "lack a CAM for a tag of their image, which stays empty": lambda c: c.absent,
            "hold a class that is no tag of their image, which is left out": lambda c: c.extra,
        }
        for message, classes in messages.items():
            lines = [
                f"{name}: class {', '.join(map(str, classes(seeds)))}"
                for name, seeds in checked
                if isinstance(seeds, ExternalCams) and classes(seeds)
            ]
            if lines:
                _log.warning(
                    "%d of %d files %s\n  %s", len(lines), len(samples), message, _first(lines)
                )

    def _check_numbers(self, images: Iterable[tuple[set[int], set[int], set[int]]]) -> None:
        """Refuse files whose classes count from elsewhere than ``first_class``.

        Args:
            images: the tags of each image, those without a CAM, and classes that are no tags.

        Raises:
            SeedError: no image has a CAM for a tag, or the other ``first_class`` fits them all.
        """
        images = list(images)
        if not any(absent for _, absent, _ in images):
            return
        first = self._settings.first_class
        other, shift = 1 - first, 2 * first - 1
        below = {0} if first else set()  # class 0 of the other count; it was not read
        fits = any(extra for *_, extra in images) and all(
            tags <= {number + shift for number in (tags - absent) | extra} | below
            for tags, absent, extra in images
        )
        if fits:
            raise SeedError(
                f"{self._folder}: the files number classes from {other}: some lack a CAM for a tag "
                f"of their image, and none would; set cams.external.first_class: {other}"
            )
        if len(images) > 1 and all(tags == absent for tags, absent, _ in images):
            raise SeedError(
                f"{self._folder}: none of {len(images)} files has a CAM for a tag of its image; "
                f"expected the data set's classes, counted from {first} "
                "(cams.external.first_class)"
            )

    def _unused_files(self) -> list[str]:
        """Seed files of no image, which a wrong list or folder would leave unused."""
        if self._ids is None:
            return []
        paths = self._folder.rglob(f"*.{self._settings.layout}")
        names = (path.relative_to(self._folder).with_suffix("").as_posix() for path in paths)
        return sorted(set(names) - set(self._ids))

    def _load(self, sample: Sample) -> _Loaded:
        pixels = None if self._input is None else self._input.pixels(sample)
        return sample, self._read(sample), pixels

    def _maps(self, loaded: _Loaded) -> CamMaps:
        sample, seeds, pixels = loaded
        stride = self._settings.stride
        grid = (-(-sample.height // stride), -(-sample.width // stride))
        cam_affinity = None
        if self._input is not None and pixels is not None:
            propagated = self._propagated(self._input.encoder, pixels, sample, seeds)
            cam_affinity = propagated.half().cpu().numpy()
        return CamMaps(sample, seeds.on_grid(grid).half().numpy(), cam_affinity)

    @torch.inference_mode()
    def _propagated(
        self,
        encoder: ClipEncoder,
        pixels: Float[Tensor, "3 height width"],
        sample: Sample,
        seeds: ExternalCams,
    ) -> Float[Tensor, "classes rows columns"]:
        """The seeds on the patch grid, propagated between the encoder's patches."""
        affinity, attention, factor = self._cams.affinity, None, None
        blocks = range(encoder.depth - affinity.blocks_of(encoder.depth), encoder.depth)
        encoding = encoder.run(pixels[None], attention_sum_of=blocks)
        if encoding.attention_sum is not None:
            attention = encoding.attention_sum / len(blocks)
        if self._other is not None:
            factor = pair_factor(self._other(pixels[None], encoding.grid), None, affinity)
        elif affinity.uses_clip:
            features = patch_features(encoder, encoding.tokens, encoding.grid)
            factor = pair_factor(features, self._bank, affinity)
        maps = to_device(seeds.on_grid(encoding.grid), encoder.device)
        image_index, _ = pack_classes([sample.tags])
        return propagate(pair_weights(attention, factor), maps, image_index, self._cams)


def _first(lines: Sequence[str]) -> str:
    more = [f"… and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
    return "\n  ".join([*lines[:_SHOWN], *more])
