"""The lattice as sparse products: against one that is walked point by point, and odd inputs."""

from collections import defaultdict

import numpy as np
import pytest
import torch

from wsss.labels import lattice_keys
from wsss.labels.lattice_keys import VertexCoding
from wsss.labels.permutohedral import _simplices, build_lattice, concatenate

Vertex = tuple[int, ...]


def naive_filter(features: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Splat, blur and slice by dictionaries, in double precision (Adams et al., 2010)."""
    dimensions = len(features)
    sides = dimensions + 1
    index = np.arange(1, sides)
    scale = sides * np.sqrt(2 / 3 / (index * (index + 1)))
    simplices = []
    for point in features.T.astype(float):
        scaled = scale * point
        tail = np.append(np.cumsum(scaled[::-1])[::-1], 0.0)  # sums from each coordinate on
        elevated = np.append(tail[0], tail[1:] - index * scaled)
        simplices.append(_simplex(elevated, sides))
    grid: dict[Vertex, np.ndarray] = defaultdict(lambda: np.zeros(values.shape[1]))
    for simplex, value in zip(simplices, values, strict=True):
        for vertex, weight in simplex:
            grid[vertex] += weight * value
    for direction in range(sides):
        step = np.ones(sides, int)
        step[direction] -= sides
        nothing = np.zeros(values.shape[1])
        grid = {
            vertex: value
            + 0.5 * grid.get(tuple(np.add(vertex, step)), nothing)
            + 0.5 * grid.get(tuple(np.subtract(vertex, step)), nothing)
            for vertex, value in grid.items()
        }
    gain = 1 / (1 + 2.0**-dimensions)
    return gain * np.array([sum(w * grid[v] for v, w in simplex) for simplex in simplices])


def _simplex(elevated: np.ndarray, sides: int) -> list[tuple[Vertex, float]]:
    """The vertices around a point of the hyperplane, with barycentric weights."""
    corner = np.rint(elevated / sides).astype(int) * sides
    distance = elevated - corner
    order = np.argsort(-distance, kind="stable")
    for _ in range(abs(corner.sum()) // sides):  # walk back to the hyperplane
        if corner.sum() > 0:
            corner[order[-1]] -= sides
        else:
            corner[order[0]] += sides
        distance = elevated - corner
        order = np.argsort(-distance, kind="stable")
    ordered = distance[order] / sides
    simplex = []
    for remainder in range(sides):
        vertex = corner + remainder
        vertex[order[sides - remainder :]] -= sides
        if remainder == 0:
            weight = 1 + ordered[-1] - ordered[0]
        else:
            weight = ordered[sides - 1 - remainder] - ordered[sides - remainder]
        simplex.append((tuple(vertex.tolist()), float(weight)))
    return simplex


@pytest.mark.parametrize("spread", [0.3, 3.0, 300.0])
@pytest.mark.parametrize("dimensions", [1, 2, 3, 5])
def test_a_filter_is_that_of_a_lattice_of_dictionaries(dimensions: int, spread: float) -> None:
    generator = np.random.default_rng(dimensions)
    features = generator.normal(0, spread, (dimensions, 60)).astype(np.float32)
    features[:, 50:] = features[:, :10] + 0.1  # neighbours, however far the others are
    values = generator.random((60, 3), dtype=np.float32)
    actual = build_lattice(torch.from_numpy(features)).filter(torch.from_numpy(values))
    expected = naive_filter(features, values)
    np.testing.assert_allclose(actual.numpy(), expected, rtol=1e-4, atol=2e-4 * max(1, spread / 30))


def test_a_filter_is_close_to_the_gaussian() -> None:
    """The lattice approximates the kernel: the normalised filters differ by some per cent."""
    generator = np.random.default_rng(0)
    features = generator.normal(0, 1.5, (3, 400)).astype(np.float32)
    values = features.T @ np.float32([[0.3], [0.5], [-0.2]])
    kernel = np.exp(-((features[:, :, None] - features[:, None]) ** 2).sum(0) / 2)
    scale = 1 / np.sqrt(kernel.sum(1))
    expected = 2.0 * scale[:, None] * (kernel @ (scale[:, None] * values))
    lattice = build_lattice(torch.from_numpy(features)).normalised(2.0)
    actual = lattice.filter(torch.from_numpy(values)).numpy()
    assert np.abs(actual - expected).mean() < 0.1 * np.abs(expected).mean()


@pytest.mark.parametrize("hashed", [False, True])
def test_keys_that_leave_an_integer_give_the_same_filter(
    hashed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """First the points do not fit behind their keys any more, then the keys do not, either."""
    generator = np.random.default_rng(1)
    features = torch.from_numpy(generator.normal(0, 20, (5, 80)).astype(np.float32))
    features[:, 40:] = features[:, :40] + 0.2
    values = torch.from_numpy(generator.random((80, 2), dtype=np.float32))
    expected = build_lattice(features).filter(values)
    corners = _simplices(features)[0]
    bits = VertexCoding.of(corners).bits
    monkeypatch.setattr(lattice_keys, "_BITS", bits + 3 - hashed)
    assert VertexCoding.of(corners).bits == bits - hashed
    torch.testing.assert_close(build_lattice(features).filter(values), expected)


def test_the_widest_settings_fit() -> None:
    """A photo of 4000 pixels with the smallest deviations that the lattice takes."""
    features = torch.zeros(5, 4)
    features[:2, 1] = 3000.0
    features[2:, 2] = 5000.0
    features[:, 3] = 4000.0
    values = torch.eye(4)
    actual = build_lattice(features).normalised().filter(values)
    assert (actual.argmax(1) == torch.arange(4)).all()
    assert actual.diagonal().allclose(torch.ones(4), atol=1e-4)
    assert (actual - actual.diagonal().diag()).abs().max() < 1e-6


def test_a_concatenation_filters_each_image_by_itself() -> None:
    generator = np.random.default_rng(2)
    features = [
        torch.from_numpy(generator.normal(0, 1, (3, count)).astype(np.float32))
        for count in (50, 1, 70)
    ]
    values = torch.from_numpy(generator.random((121, 4), dtype=np.float32))
    lattices = [build_lattice(x).normalised(3.0) for x in features]
    expected = [x.filter(v) for x, v in zip(lattices, values.split([50, 1, 70]), strict=True)]
    torch.testing.assert_close(concatenate(lattices).filter(values), torch.cat(expected))
