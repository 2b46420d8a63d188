"""How an artifact would be made now."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping

from wsss.artifacts.digest import digest_files
from wsss.artifacts.provenance import Provenance
from wsss.artifacts.stage import STAGES
from wsss.artifacts.staleness import digest_differences, seed_difference, setting_differences
from wsss.cams.external.source import seed_files
from wsss.config.paths import expand_path
from wsss.masks.proposal_files import proposal_files
from wsss.pipeline.runs import Runs
from wsss.pipeline.stages import entry_modules
from wsss.score.inputs import corrections_digest


class Expected:
    """The provenance that stages would give now, by stage and run."""

    def __init__(self, runs: Runs) -> None:
        self._runs = runs
        self._provenance = functools.cache(self._make)

    def _make(self, stage: str, run: str) -> Provenance:
        config = self._runs[run].config
        declared = STAGES[stage]
        modules = entry_modules(stage, config)
        return declared.provenance(declared.select(config), modules=modules)

    def files_of_others(self, product: str, run: str, images: Iterable[str]) -> dict[str, str]:
        """Digests of files that no stage wrote and a product is made from, as its inputs have them.

        Those of a manifest are in its provenance; weights and descriptions count as settings.

        Args:
            images: ids of those in the product; of corrected masks, all that may have one.
        """
        config = self._runs[run].config
        if product == "cams" and config.cams.source == "external":
            return {"external": digest_files(seed_files(config.cams.external, images))}
        if product == "masks" and config.masks.refine == "sam":
            folder = expand_path(config.masks.proposals.path)
            return {"proposals": digest_files(proposal_files(folder, images))}
        if product == "corrected_masks":
            return {"truth": corrections_digest(config.retrain.corrected, images)}
        return {}

    def differences(
        self,
        stored: Provenance,
        stage: str,
        run: str,
        *,
        inputs: Mapping[str, str],
        weights: Mapping[str, str] | None = None,
    ) -> Iterator[str]:
        """Everything by which an artifact differs from one that were made now, as sentences.

        Args:
            inputs: digests of what it is made from, by name; what is missing there is left out.
            weights: digests of the weights that it is made with, as far as they lie in the run.
        """
        expected = self._provenance(stage, run)
        if stored.stage != stage:
            yield f"made by the stage {stored.stage}, expected {stage}"
        yield from setting_differences(stored, expected)
        if "seed" in STAGES[stage].reads:
            yield from seed_difference(stored.seed, expected.seed)
        if stored.code != expected.code:
            yield (
                f"made by other code (digest {stored.code[:12]}, now {expected.code[:12]}): "
                f"modules of the stage {stage} were edited since"
            )
        for name in sorted(stored.packages.keys() & expected.packages.keys()):
            before, now = stored.packages[name], expected.packages[name]
            if before != now:
                yield f"made with {name} {before}, installed is {now}"
        yield from digest_differences(stored.weights, weights or {}, "weights")
        yield from digest_differences(stored.inputs, inputs, "input")
        for name in inputs.keys() - stored.inputs.keys():
            yield f"does not name {name} as an input: made from others, or by an older version"
