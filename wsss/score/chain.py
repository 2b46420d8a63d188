"""Whether shards were made as the configuration says: a score attests it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from wsss.artifacts.provenance import Provenance
from wsss.artifacts.stage import difference_text, source_differences
from wsss.artifacts.staleness import digest_differences, refuse_other_supervision
from wsss.config.base import learned_from
from wsss.score.metrics.counting import ProductError


class Chain:
    """The stages behind the shards of a split, which must agree with the configuration.

    The workflow engine notices changes by a record of its own (``.snakemake``). Where that is lost
    or is another clone's, an older shard looks up to date; its provenance tells.

    Args:
        expected: what the score would attest.
        inputs: digests of the images and of the class list.
    """

    def __init__(self, expected: Provenance, inputs: Mapping[str, str]) -> None:
        self._expected, self._inputs = expected, dict(inputs)
        self._weights: dict[str, str] = {}

    def add(self, path: Path, provenance: Provenance) -> None:
        """Check a shard and everything that it was made from.

        Raises:
            ProductError: settings, seed, images, classes or weights differ.
            ArtifactError: it is of a supervised upper bound and the score is not, or the other way
                round.
        """
        if "supervision" in self._expected.config:
            refuse_other_supervision(path, provenance, learned_from(self._expected.config))
        differences = source_differences(provenance, self._expected)
        for entry in provenance.chain():
            sentences = [
                *digest_differences(entry.inputs, self._inputs, "images or classes:"),
                *digest_differences(
                    entry.weights, self._weights, "weights than the rest of its chain:"
                ),
            ]
            if sentences:
                differences.setdefault(entry.stage, []).extend(sentences)
            self._weights = entry.weights | self._weights
        if differences:
            raise ProductError(difference_text(path, differences))
