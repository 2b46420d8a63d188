"""COCO's label maps as palette PNGs, for scoring without the JSON and for other tools.

::

    <masks>/<rule>/train2014/COCO_train2014_000000000009.png    0 background, 1 … 80, 255 void
    <masks>/<rule>/train2014.json                               written last: the part is complete

Classes are numbered without gaps in the order of the category ids; the rules are those of
`wsss.score.truth.coco`, by which scoring itself draws as well. An interrupted call goes on where it
stopped; another JSON, or other code of the rules, draws everything again.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from shlex import join

from wsss.artifacts.atomic import remove_abandoned, write_text
from wsss.artifacts.digest import digest_file, digest_json
from wsss.artifacts.progress import track
from wsss.compute.pool import as_completed_ahead
from wsss.config.data import COCO_RULES, CocoRule
from wsss.data.datasets.coco import CLASS_OF_CATEGORY, instances_path
from wsss.data.datasets.words import COCO_NAMES
from wsss.data.images.label_png import save_label_png
from wsss.errors import raise_unless_about
from wsss.score.truth import coco
from wsss.score.truth.coco import CocoLabels, CocoTruth
from wsss.score.truth.errors import TruthError

_ORIGIN = ".origin.json"  # next to the PNGs, from the first of them on
_IMAGES_PER_JOB = 64
_IMAGES_WORTH_A_POOL = 500  # some seconds of drawing
Job = Sequence[tuple[Path, CocoTruth]]


def draw_part(
    root: Path, part: str, masks: Path, rule: CocoRule, *, workers: int
) -> tuple[int, int]:
    """Draw the label maps of one part of COCO 2014.

    Args:
        part: ``train`` or ``val``.
        masks: folder to write to; it holds all rules and both parts.
        rule: of `wsss.score.truth.coco`.

    Returns:
        The number of images, and how many of them were drawn by this call.

    Raises:
        DataError: the instances JSON is missing, or no JSON of COCO's.
        TruthError: the folder holds PNGs that were not drawn here.
    """
    source, folder = instances_path(root, part), part_folder(masks, part, rule)
    for place in (masks, masks / f"{part}2014", masks / part, folder):
        _refuse_foreign(place)
    labels = CocoLabels(source, rule)
    origin = _origin(source, len(labels.file_names), rule)
    _prepare(folder, origin)
    remove_abandoned(folder)
    drawn = _finished(folder)
    paths = {name: folder / f"{Path(name).stem}.png" for name in labels.file_names}
    todo = [name for name, path in paths.items() if path.name not in drawn]
    jobs = _jobs(todo, labels, paths)
    what = f"drawing {part}2014"
    done: Iterator[int] = map(_draw, jobs)
    if workers > 1 and len(todo) >= _IMAGES_WORTH_A_POOL:
        done = as_completed_ahead(_draw, jobs, workers=workers, description=what)
    for _ in track(_each(done), total=len(todo), description=what):
        pass
    write_text(mark_path(masks, part, rule), json.dumps(origin, indent=2) + "\n")
    return len(paths), len(todo)


def part_folder(masks: Path, part: str, rule: CocoRule) -> Path:
    """Where the PNGs of a part lie."""
    return masks / rule / f"{part}2014"


def mark_path(masks: Path, part: str, rule: CocoRule) -> Path:
    """The file that says that a part is complete, and what it was drawn from."""
    return masks / rule / f"{part}2014.json"


def check_drawn(masks: Path, part: str, rule: CocoRule, root: Path) -> None:
    """Check that a part was drawn in full, from the JSON that is there and by today's code.

    Args:
        masks: what `draw_part` wrote to.
        part: ``train`` or ``val``.
        rule: of `wsss.score.truth.coco`.

    Raises:
        TruthError: it was not.
    """
    mark, source = mark_path(masks, part, rule), instances_path(root, part)
    command = join(["wsss", "truth", "coco-masks", str(root), "--rule", rule, "--out", str(masks)])
    remedy = f"run `{command}`, or empty data.masks"
    try:
        stored = json.loads(mark.read_text(encoding="utf-8"))
        expected = _origin(source, int(stored["images"]), rule) if source.is_file() else stored
    except FileNotFoundError:
        raise TruthError(f"{mark}: not there, so {part}2014 is not drawn; {remedy}") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise_unless_about(mark, error)
        raise TruthError(f"{mark}: cannot be read ({error!r}); {remedy}") from None
    if stored != expected:
        raise TruthError(f"{mark}: drawn from another {source} or by other code; {remedy}")


def _origin(source: Path, images: int, rule: CocoRule) -> dict[str, object]:
    """Everything that the PNGs depend on; equal values, equal PNGs."""
    code = digest_file(Path(coco.__file__))
    return {
        "rule": f"{rule}: {COCO_RULES[rule]}",
        "drawn_by": digest_json([code, version("pycocotools"), dict(CLASS_OF_CATEGORY)]),
        "instances": digest_file(source),
        "images": images,
        "labels": ["background", *COCO_NAMES],
        "void": 255,
    }


def _prepare(folder: Path, origin: dict[str, object]) -> None:
    """Make the folder; PNGs that were drawn from something else are removed."""
    inner = folder / _ORIGIN
    if inner.is_file():
        if inner.read_text(encoding="utf-8") == json.dumps(origin):
            return
        shutil.rmtree(folder)
    write_text(inner, json.dumps(origin))


def _refuse_foreign(folder: Path) -> None:
    """What lies where others keep the PNGs that they made is not drawn over, nor next to."""
    if any(folder.glob("*.png")) and not (folder / _ORIGIN).is_file():
        raise TruthError(
            f"{folder}: holds PNGs that this command did not draw; to score with them, set "
            "data.coco_truth to png; to draw, name another folder"
        )


def _finished(folder: Path) -> set[str]:
    """Names of the PNGs that exist; a power cut may leave an empty file."""
    with os.scandir(folder) as entries:
        return {entry.name for entry in entries if entry.stat().st_size > 0}


def _jobs(names: Sequence[str], labels: CocoLabels, paths: dict[str, Path]) -> Iterator[Job]:
    for start in range(0, len(names), _IMAGES_PER_JOB):
        truths = [(name, labels.find(name)) for name in names[start : start + _IMAGES_PER_JOB]]
        yield [(paths[name], truth) for name, truth in truths if truth is not None]


def _draw(job: Job) -> int:
    for path, truth in job:
        save_label_png(path, truth.read())
    return len(job)


def _each(counts: Iterator[int]) -> Iterator[None]:
    """One step per image, for the progress."""
    for count in counts:
        yield from [None] * count
