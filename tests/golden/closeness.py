"""Golden arrays, and how tests measure closeness to them."""

from collections.abc import Mapping

import numpy as np
import torch

FLOAT32 = 1e-4  # largest difference over largest magnitude, as the golden README suggests
HALF = 2e-3
SAME_PIXELS = 0.999

Arrays = Mapping[str, np.ndarray]


def tensor(arrays: Arrays, name: str, device: torch.device | str = "cpu") -> torch.Tensor:
    return torch.from_numpy(arrays[name]).to(device)


def assert_close_rel(
    actual: np.ndarray | torch.Tensor,
    expected: np.ndarray | torch.Tensor,
    tol: float,
    what: str = "",
) -> float:
    """Largest difference divided by the largest magnitude must be at most ``tol``; returns it."""
    computed, published = (
        np.asarray(x.detach().cpu().numpy() if isinstance(x, torch.Tensor) else x, dtype=np.float64)
        for x in (actual, expected)
    )
    assert computed.shape == published.shape, (
        f"{what}: shape {computed.shape}, expected {published.shape}"
    )
    largest = np.abs(published).max() if published.size else 0.0
    difference = np.abs(computed - published).max() if published.size else 0.0
    error = float(difference / largest) if largest else float(difference)
    assert error <= tol, f"{what}: off by {error:.2e} of the largest magnitude, allowed {tol:.0e}"
    return error
