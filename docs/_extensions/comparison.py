"""Tables of several methods, from the files of `docs/results/data` that their own pages show."""

from __future__ import annotations

import csv
from pathlib import Path

DATA = Path(__file__).parents[1] / "results/data"
METHODS = {"WeCLIP": "weclip", "WeakCLIP": "weakclip", "ExCEL": "excel"}
UNMEASURED = {"WeCLIP+": "weclip-plus"}
"""Methods whose encoders' weights were not at hand, and their pages."""


def demo() -> str:
    """The corrected variants on the demo."""
    columns = ["scores train", "mask train, CRF", "prediction val", "prediction val, CRF"]
    rows = [
        ["Grad-CAM", _cell("demo-older", ["CAM"], "old: train"), "", "", ""],
        [
            "[CLIP-ES](../methods/clip-es.md)",
            _cell("demo-older", ["refined"], "old: train"),
            _cell("demo-older", ["pseudo mask"], "old: train"),
            "",
            "",
        ],
    ]
    return _table(["method", *columns], [*rows, *_refiners("demo", columns)])


def photographs() -> str:
    """The corrected variants on the photographs."""
    columns = ["scores train", "mask train, CRF", "prediction val"]
    mean, pseudo_mask = "mean of six", "CAM + affinity + CRF (pseudo mask), fixed"
    rows = [
        ["Grad-CAM", _cell("photographs", ["CAM, fixed", "train"], mean), "", ""],
        [
            "[CLIP-ES](../methods/clip-es.md)",
            _cell("photographs", ["CAM + affinity, fixed", "train"], mean),
            _cell("photographs", [pseudo_mask, "train"], mean),
            "",
        ],
        [
            "imported seeds",
            _cell("photographs", ["external seeds, fixed", "train"], mean),
            _cell("photographs", ["external seeds + CRF (pseudo mask), fixed", "train"], mean),
            "",
        ],
    ]
    return _table(["method", *columns], [*rows, *_refiners("photographs", columns)])


def costs() -> str:
    """What a training costs at the published size, on VOC."""
    columns = ["trained parameters", "hours on one GPU", "source of the hours"]
    rows = [
        [
            method,
            _cell("costs", [method], columns[0]),
            _cell("speed-trainings", [f"`voc12-{name}`, refiner"], "per step"),
            _cell("speed-trainings", [f"`voc12-{name}`, refiner"], "steps"),
            *(_cell("costs", [method], column) for column in columns[1:]),
        ]
        for method, name in METHODS.items()
    ]
    unmeasured = "its encoders' weights were not at hand"
    rows += [
        [method, _cell("costs", [method], columns[0]), *["not measured"] * 3, unmeasured]
        for method in UNMEASURED
    ]
    header = ["method", columns[0], "a step on one CPU core", "steps", *columns[1:]]
    return _table(header, [["CLIP-ES", "none", "", "", "", "nothing is trained"], *rows])


def _refiners(data: str, columns: list[str]) -> list[list[str]]:
    return [
        [f"[{method}]({name}.md)"]
        + [_cell(f"{name}-{data}", ["corrected"], column) for column in columns]
        for method, name in METHODS.items()
    ] + [
        [f"[{method}](../methods/{page}.md)", *["not measured"] * len(columns)]
        for method, page in UNMEASURED.items()
    ]


def _cell(name: str, first_cells: list[str], column: str) -> str:
    """The cell of the row that begins like this; empty where the file has no such column."""
    with (DATA / f"{name}.csv").open(encoding="utf-8", newline="") as stream:
        header, *rows = csv.reader(stream)
    if column not in header:
        return ""
    for row in rows:
        if all(cell.startswith(start) for cell, start in zip(row, first_cells, strict=False)):
            return row[header.index(column)]
    raise ValueError(f"{name}.csv has no row that begins with {first_cells}")


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
