"""Manifest, shards, masks and trainings, compared with configuration, code and inputs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from wsss.artifacts.checkpoint_header import (
    checkpoint_facts,
    checkpoint_provenance,
    checkpoint_weights,
)
from wsss.artifacts.digest import digest_file, digest_json
from wsss.artifacts.errors import ArtifactError
from wsss.artifacts.provenance import Provenance
from wsss.artifacts.shard import Shard
from wsss.config.model import Config
from wsss.config.paths import expand_path
from wsss.data.counted import list_images
from wsss.data.manifest import Manifest
from wsss.data.manifest_folder import MANIFEST, load, manifest_digests, read_provenance
from wsss.pipeline.products import PRODUCTS
from wsss.pipeline.runs import Runs
from wsss.pipeline.verify.expected import Expected
from wsss.pipeline.verify.findings import Findings, first_texts
from wsss.pipeline.verify.pngs import png_differences
from wsss.score.tables.efficiency import read_efficiency

_KINDS = {"scores_grid": "scores", "refiner_predictions": "predictions"}
"""What the shards of a product hold, where it is called otherwise."""
_HAS_PNGS = frozenset({"seeds", "masks"})
_CHECKPOINTS = {"refine": "checkpoint.safetensors", "segmenter": "weights.safetensors"}


@dataclass
class Chain:
    """The artifacts of some runs, checked in the order in which data walks through them."""

    runs: Runs
    expected: Expected
    findings: Findings
    quick: bool
    """Read no item of a shard, no PNG and no photograph."""
    contents: dict[Path, str] = field(default_factory=dict)
    """Digests of the content of shards."""
    weights: dict[Path, dict[str, str]] = field(default_factory=dict)
    """Weights by which others name a checkpoint, or with which a shard was made."""
    manifests: dict[Path, Manifest] = field(default_factory=dict)
    digests: dict[Path, dict[str, str]] = field(default_factory=dict)
    """Of manifests and class lists."""
    pngs: dict[Path, list[str]] = field(default_factory=dict)
    """What is wrong with the PNGs next to a shard."""
    _checked: dict[tuple[str, str, str], list[Path]] = field(default_factory=dict)
    """Shards and checkpoints by product, run and split."""

    def manifest(self, run: str) -> Path:
        """Check the manifest that a run uses; gives its folder."""
        given = Path(self.runs.folder("manifest", run))
        self.findings.check(given / MANIFEST, "ingest", lambda: self._ingested(given, run))
        folder = Path(self.runs.manifest_folder(run))
        if folder != given:
            reasons = partial(self._manifest, folder, "noisy_tags", run, given)
            self.findings.check(folder / MANIFEST, "tag_noise", reasons, [given / MANIFEST])
        return folder

    def _manifest(
        self, folder: Path, product: str, run: str, given: Path | None = None
    ) -> Iterator[str]:
        self.manifests[folder], _ = load(folder)
        self.digests[folder] = manifest_digests(folder)
        stored, stage = read_provenance(folder), PRODUCTS[product].stage
        inputs = self.digests.get(given, {}) if given else {}
        producer = self.runs.producer(product, run)
        yield from self.expected.differences(stored, stage, producer, inputs=inputs)
        for name, digest in stored.outputs.items():
            if not _is(folder / name, digest):
                raise ArtifactError(f"{name} is not what {stage} wrote: it was edited or replaced")

    def _ingested(self, folder: Path, run: str) -> Iterator[str]:
        yield from self._manifest(folder, "manifest", run)
        stored = read_provenance(folder)
        for text, digest in stored.inputs.items():
            if not Path(text).is_file():
                yield f"made from {text}, which is gone"
            elif digest_file(Path(text)) != digest:
                yield f"made from {text}, which has changed since"
        if not self.quick:
            changed = [s.id for s in self.manifests[folder] if not _is(s.path, s.digest)]
            if changed:
                yield f"the photographs of {list_images(changed)} changed since, or are gone"

    def shards(self, product: str, run: str, split: str) -> list[Path]:
        """Check the shards of a split of a product that a run uses, and their PNGs."""
        producer = self.runs.producer(product, run)
        key = (product, producer, split)
        if key not in self._checked:
            self._checked[key] = self._check_shards(product, producer, split)
        return self._checked[key]

    def _check_shards(self, product: str, producer: str, split: str) -> list[Path]:
        manifest = self.manifest(producer)
        paths = list(map(Path, self.runs.shards(product, producer, split)))
        for part, path in enumerate(paths, start=1):
            sources = self._sources(product, producer, split, part - 1)
            rule = PRODUCTS[product].stage
            reasons = partial(self._shard, product, path, producer, manifest, sources, split, part)
            self.findings.check(path, rule, reasons, [manifest / MANIFEST, *sources])
            if product in _HAS_PNGS:
                folder = path.parent / "png" / path.stem
                self.findings.check(folder, rule, partial(self._pngs, folder), [path])
        for path in sorted((paths[0].parent / "png").glob("*-of-*/")):
            if path.name not in {shard.stem for shard in paths}:
                reason = f"is of another number of parts than shards ({len(paths)}); delete it"
                self.findings.check(path, "", partial(list, [reason]))
        return paths

    def _sources(self, product: str, run: str, split: str, index: int) -> list[Path]:
        """What a shard is made from, apart from the manifest; checks it first."""
        config = self.runs[run].config
        if product in ("cams", "truth_masks"):
            return []
        if product == "seeds":
            return [self.shards("cams", run, split)[index]]
        if product == "scores_grid":
            return [self.shards("cams", run, split)[index], *self.training("refine", run)]
        if product == "masks":
            before = "scores_grid" if config.refine.is_trained else "cams"
            return [self.shards(before, run, split)[index]]
        return self.training("refine" if product == "refiner_predictions" else "segmenter", run)

    def _shard(
        self,
        product: str,
        path: Path,
        run: str,
        manifest: Path,
        sources: list[Path],
        split: str,
        part: int,
    ) -> Iterator[str]:
        with Shard(path, kind=_KINDS.get(product, product)) as shard:
            self.contents[path] = shard.content
            self.weights[path] = shard.provenance.weights
            inputs = dict(self.digests.get(manifest, {}))
            for source in sources:
                if source in self.contents:
                    name = "scores" if product == "masks" else f"cams/{source.name}"
                    inputs[name] = self.contents[source]
            if not self.quick:
                inputs |= self.expected.files_of_others(product, run, shard.ids)
            stored, stage = shard.provenance, PRODUCTS[product].stage
            weights = self._weights(sources)
            yield from self.expected.differences(stored, stage, run, inputs=inputs, weights=weights)
            if manifest in self.manifests:
                count = self.runs[run].config.shards
                listed = self.manifests[manifest].split(split).shard(part, count)
                if others := {sample.id for sample in listed} ^ set(shard.ids):
                    yield f"its part of the split differs by {list_images(sorted(others))}"
            if self.quick:
                return
            if product in _HAS_PNGS:
                folder = path.parent / "png" / path.stem
                self.pngs[folder] = list(png_differences(folder, shard))
            else:
                for _ in shard:
                    pass

    def _pngs(self, folder: Path) -> list[str]:
        if problems := self.pngs.get(folder):
            raise ArtifactError(first_texts(problems))
        return []

    def _weights(self, sources: Iterable[Path]) -> dict[str, str]:
        return {n: d for path in sources for n, d in self.weights.get(path, {}).items()}

    def training(self, product: str, run: str) -> list[Path]:
        """Check a checkpoint, its loss curve and its cost; gives the checkpoint."""
        producer = self.runs.producer(product, run)
        key = (product, producer, "")
        if key not in self._checked:
            self._checked[key] = self._check_training(product, producer)
        return self._checked[key]

    def _check_training(self, product: str, producer: str) -> list[Path]:
        config = self.runs[producer].config
        path = Path(self.runs.folder(product, producer)) / _CHECKPOINTS[product]
        if product == "refine" and config.refine.checkpoint is not None:
            text = config.refine.checkpoint
            self.findings.check(
                path, "refine_import", lambda: self._imported(path, producer, expand_path(text))
            )
            return [path]
        manifest = self.manifest(producer)
        sources = {
            kind: self.shards(kind, producer, "train") for kind in self._taught_by(product, config)
        }
        if product == "segmenter" and config.retrain.corrected:
            sources["corrected_masks"] = [self._corrected(producer, manifest)]
        rule = PRODUCTS[product].stage
        every = [manifest / MANIFEST, *(shard for shards in sources.values() for shard in shards)]
        self.findings.check(
            path, rule, lambda: self._trained(product, path, producer, manifest, sources), every
        )
        loss, cost = path.parent / "loss.csv", path.parent / "efficiency.json"
        self.findings.check(loss, rule, lambda: _loss(loss, path), [path])
        if product == "refine":
            self.findings.check(cost, rule, lambda: _cost(cost, path), [path])
        return [path]

    def _corrected(self, run: str, manifest: Path) -> Path:
        """Check the corrected masks that a segmenter learns from; gives their shard."""
        path = Path(self.runs.folder("corrected_masks", run)) / "train.h5"

        def reasons() -> Iterator[str]:
            with Shard(path, kind="corrected_masks") as shard:
                self.contents[path] = shard.content
                stored = shard.provenance
                if not self.quick:
                    for _ in shard:
                        pass
            inputs = dict(self.digests.get(manifest, {}))
            if not self.quick and (listed := self.manifests.get(manifest)):
                images = [sample.id for sample in listed.split("train")]
                inputs |= self.expected.files_of_others("corrected_masks", run, images)
            yield from self.expected.differences(stored, "corrected_masks", run, inputs=inputs)

        self.findings.check(path, "corrected_masks", reasons, [manifest / MANIFEST])
        return path

    @staticmethod
    def _taught_by(product: str, config: Config) -> list[str]:
        """The products that a training learns from."""
        if config.supervision == "masks":
            return ["truth_masks"]
        if product == "segmenter":
            return ["masks"]
        return ["cams", *(["seeds"] if config.needs_seeds else [])]

    def _trained(
        self, product: str, path: Path, run: str, manifest: Path, sources: dict[str, list[Path]]
    ) -> Iterator[str]:
        stored = self._checkpoint(product, path)
        inputs = dict(self.digests.get(manifest, {}))
        for kind, shards in sources.items():
            contents = {shard: self.contents[shard] for shard in shards if shard in self.contents}
            if product == "refine":
                inputs |= {f"{kind}/{shard.name}": digest for shard, digest in contents.items()}
            elif len(contents) == len(shards):
                name = "corrected" if kind == "corrected_masks" else "masks"
                inputs[name] = digest_json(list(contents.values()))
        every = [shard for shards in sources.values() for shard in shards]
        weights = {} if product == "segmenter" else self._weights(every)
        stage = PRODUCTS[product].stage
        yield from self.expected.differences(stored, stage, run, inputs=inputs, weights=weights)

    def _imported(self, path: Path, run: str, file: Path) -> Iterator[str]:
        stored = self._checkpoint("refine", path)
        if not file.is_file():
            yield f"made from {file} (refine.checkpoint), which is gone"
        elif stored.stage != "refine_import":  # one of this pipeline, which is copied
            if digest_file(file) != digest_file(path):
                yield f"is no copy of {file} (refine.checkpoint)"
        else:
            inputs = {file.name: digest_file(file)}
            yield from self.expected.differences(stored, "refine_import", run, inputs=inputs)

    def _checkpoint(self, product: str, path: Path) -> Provenance:
        checkpoint_facts(path)  # every byte is checked
        stored = checkpoint_provenance(path)
        if product == "segmenter":
            self.weights[path] = {"segmenter": digest_file(path)}
        else:
            method = stored.config.get("refine", {}).get("method")
            self.weights[path] = checkpoint_weights(path, method)
        return stored


def _is(path: Path, digest: str) -> bool:
    try:
        return digest_file(path) == digest
    except OSError:
        return False


def _loss(path: Path, checkpoint: Path) -> list[str]:
    stored = checkpoint_provenance(checkpoint).outputs.get(path.name) if checkpoint.exists() else ""
    if stored != digest_file(path):
        raise ArtifactError(f"is not what the training of {checkpoint.name} wrote: it was edited")
    return []


def _cost(path: Path, checkpoint: Path) -> Iterator[str]:
    digest = checkpoint_provenance(checkpoint).digest() if checkpoint.exists() else ""
    if read_efficiency(path).training != digest:
        yield f"is of another training than {checkpoint.name}"
