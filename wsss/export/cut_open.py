"""Polygons have no holes: one outline that runs around the part, and on the way around its holes.

Hole by hole, the line that leads to a hole and back is the shortest from what the outline is by
then, so from its outer part or from an earlier hole. Short lines matter: programs that fill all
pixels which a polygon touches fill those of the lines as well.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int32, Int64

Outline = Int32[np.ndarray, "_ 2"]
_SMALLEST, _RATIO = 64, 16
"""Vertices of the first tree at most, and how many times as many the next one has."""


def cut_open(outer: Outline, holes: Sequence[Outline]) -> Outline:
    """One outline that runs from the vertex nearest to each hole around it and back.

    Distances are those along the axes. Of equally near vertices the first of the outline is taken,
    then the first of the hole. With n vertices it takes some n log(n) ** 2 steps; more where holes
    hang on each other in a long row.

    Args:
        outer: x and y of each vertex.
        holes: of the same part, in the order in which they are added.
    """
    if not holes:
        return outer
    loops = _Loops(outer)
    for hole in holes:
        loops.add(hole)
    return loops.outline()


@dataclass(frozen=True)
class _Loop:
    """The vertices of a hole, or of the outer outline, as they follow each other."""

    first: int
    """Number of its first vertex; the others follow."""
    after: int
    """Number of the vertex at which it begins and ends."""


class _Loops:
    """Loops of vertices that hang on each other; they become one outline at the end.

    Vertices have numbers: those of the outer outline, then those of each hole.
    """

    def __init__(self, outer: Outline) -> None:
        self._points = [outer]
        self._loops = [_Loop(0, -1)]
        self._loop_of = [0] * len(outer)
        self._trees = _Trees()
        self._trees.add(outer, np.arange(len(outer)))

    def add(self, hole: Outline) -> None:
        """Hang a hole on the nearest vertex."""
        nearest = self._trees.nearest(hole)
        start = min({number for number, _ in nearest}, key=self._place)
        begin = min(index for number, index in nearest if number == start)
        around = np.roll(hole, -begin, axis=0)
        first = len(self._loop_of)
        self._loop_of += [len(self._loops)] * len(hole)
        self._loops.append(_Loop(first, start))
        self._points.append(around)
        self._trees.add(around, np.arange(first, first + len(hole)))

    def outline(self) -> Outline:
        """All vertices in order; where a loop ends, its first one and that before it come again."""
        loops_after: dict[int, list[range]] = defaultdict(list)
        ends = [*(loop.first for loop in self._loops[1:]), len(self._loop_of)]
        for loop, end in zip(self._loops[1:], ends[1:], strict=True):
            loops_after[loop.after].append(range(loop.first, end))
        order = []
        waiting = [*reversed(range(ends[0]))]  # ~number: come back to a vertex
        while waiting:
            number = waiting.pop()
            order.append(number if number >= 0 else ~number)
            for numbers in loops_after.get(number, ()):
                waiting += [~number, ~numbers[0], *reversed(numbers)]
        return np.concatenate(self._points)[order]

    def _place(self, number: int) -> tuple[int, ...]:
        """What orders vertices as the outline has them.

        A vertex comes before what hangs on it. Of its loops the newest comes first.
        """
        steps = []
        while number >= 0:
            index = self._loop_of[number]
            steps += [number - self._loops[index].first, -index]
            number = self._loops[index].after
        return tuple(reversed(steps))


class _Trees:
    """Vertices to which more are added, for searches: a few trees, each much larger than the one
    before it, so that most additions build a small one."""

    def __init__(self) -> None:
        self._trees: list[tuple[Any, Int64[np.ndarray, " _"]] | None] = []

    def add(self, points: Outline, numbers: Int64[np.ndarray, " _"]) -> None:
        """Add vertices; a tree that would grow too large goes into the next one."""
        from scipy.spatial import cKDTree  # when a mask has a hole

        coordinates, level = points.astype(np.float64), 0
        while True:
            if level == len(self._trees):
                self._trees.append(None)
            if (smaller := self._trees[level]) is not None:
                coordinates = np.concatenate([smaller[0].data, coordinates])
                numbers = np.concatenate([smaller[1], numbers])
            if len(numbers) <= _SMALLEST * _RATIO**level:
                self._trees[level] = cKDTree(coordinates), numbers
                return
            self._trees[level] = None
            level += 1

    def nearest(self, hole: Outline) -> list[tuple[int, int]]:
        """The pairs of least distance: number of the vertex, and index in the hole."""
        searched = [
            (tree, numbers, tree.query(hole, p=1)[0]) for tree, numbers in filter(None, self._trees)
        ]
        least = min(distances.min() for _, _, distances in searched)
        pairs = []
        for tree, numbers, distances in searched:
            for index in np.flatnonzero(distances == least).tolist():
                equal = tree.query_ball_point(hole[index], least, p=1)
                pairs += [(int(numbers[place]), index) for place in equal]
        return pairs
