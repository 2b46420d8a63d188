"""The runs of a workflow, and which of them makes what several of them use.

A configuration with a `sweep`, named `runs` or a `matrix` stands for several runs. What they would
make in the same way, from the manifest to the predictions, is made once: by the first of them,
their **owner**. A matrix has owners of its own, so that what its runs share does not hang on the
order of the entries: ``<name>/<cams>`` for CAMs, ``<name>/<cams>/<refine>`` for pseudo masks.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from wsss.cli.stages import stage_sections
from wsss.config import Config, ConfigError, from_mapping
from wsss.config.sweep import points, run_name


@dataclass(frozen=True)
class Product:
    """A folder of a run: the stage that fills it, and of which folders."""

    stage: str
    made_of: tuple[str, ...] = ()


PRODUCTS: dict[str, Product] = {
    "manifest": Product("ingest"),
    "cams": Product("cams", ("manifest",)),
    "seeds": Product("seeds", ("cams",)),
    "refine": Product("refine_train", ("cams", "seeds")),
    "scores_grid": Product("refine_apply", ("refine",)),
    "refiner_predictions": Product("refine_predict", ("refine",)),
    "masks": Product("masks", ("scores_grid",)),
    "segmenter": Product("retrain", ("masks",)),
    "predictions": Product("predict", ("segmenter",)),
}
"""By the folder's name, in the order in which data walks through them."""

SCORED = {
    "blob": "manifest",
    "cam": "cams",
    "affinity": "cams",
    "seeds": "seeds",
    "refined": "scores_grid",
    "masks": "masks",
    "refiner": "refiner_predictions",
    "predictions": "predictions",
}
"""What a file of records scores, by the file's name: it lies in the run that made the product."""

_CAMS = frozenset({"manifest", "cams"})
_MASKS = frozenset(PRODUCTS) - {"segmenter", "predictions"}
_FOLDERS = frozenset(PRODUCTS) | {"scores", "tables", "pictures", "logs", "benchmarks"}


@dataclass(frozen=True)
class Run:
    """One run."""

    config: Config
    owns: frozenset[str] = frozenset(PRODUCTS)
    """Products that it may make for others."""
    final: bool = True
    """Whether it was asked for; else it is there for what others share."""


class Runs(Mapping[str, Run]):
    """The runs of one configuration by their folders below ``results``.

    Args:
        mapping: see `wsss.config.load.from_mapping`.
        where: where it came from, for messages.

    Raises:
        ConfigError: see `wsss.config.sweep.points`; or a run would lie in a folder of another.
    """

    def __init__(self, mapping: Mapping[str, Any], *, where: str = "config") -> None:
        base = from_mapping(mapping, where=where)
        found, axes = points(mapping, where=where), base.matrix.axes
        self.name = base.name
        self._owner, self._key = functools.cache(self._find_owner), functools.cache(self._make_key)
        if wrong := {label.split("/")[0] for label in found} & _FOLDERS:
            raise ConfigError(
                f"{where}: a run cannot be called {sorted(wrong)[0]!r}, which is a folder of every "
                "run; choose another name"
            )
        self._runs = {base.name: Run(base, final=True)}
        if "" in found:
            return
        self._runs = {base.name: Run(base, _MASKS if axes == ["retrain"] else _CAMS, final=False)}
        for depth in range(1, len(axes)):
            owns = _MASKS if axes[depth] == "retrain" else _CAMS
            for label, config in found.items():
                shared = "/".join(label.split("/")[:depth])
                named = config.model_copy(update={"name": run_name(base.name, shared)})
                self._runs.setdefault(f"{base.name}/{shared}", Run(named, owns, final=False))
        self._runs |= {f"{base.name}/{label}": Run(config) for label, config in found.items()}

    def __getitem__(self, name: str) -> Run:
        return self._runs[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._runs)

    def __len__(self) -> int:
        return len(self._runs)

    @property
    def final(self) -> list[str]:
        """Those that were asked for."""
        return [name for name, run in self.items() if run.final]

    def owner(self, product: str, name: str) -> str:
        """The run in whose folder lies what a run uses of a product."""
        return self._owner(product, name)

    def _find_owner(self, product: str, name: str) -> str:
        wanted = self._key(product, name)
        able = (other for other, run in self.items() if product in run.owns)
        return next((other for other in able if self._key(product, other) == wanted), name)

    def _make_key(self, product: str, name: str) -> tuple[str, ...]:
        """Everything that decides what a product is; the same key, the same content."""
        config, kind = self[name].config, PRODUCTS[product]
        if product == "seeds" and not config.refine.needs_seeds:
            return self._key("cams", name)
        above = (self._key(other, name) for other in kind.made_of)
        own = (stage_sections(kind.stage, config), str(config.shards))
        return tuple(dict.fromkeys((*(entry for key in above for entry in key), *own)))
