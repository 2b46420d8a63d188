"""Mean field of the dense CRF by brute force: every pair of pixels, in double precision."""

import numpy as np

from wsss.config.labels import CrfConfig


def mean_field(probabilities: np.ndarray, image: np.ndarray, config: CrfConfig) -> np.ndarray:
    """Posterior [labels, h, w] after Krähenbühl and Koltun, kernels normalised symmetrically."""
    labels, height, width = probabilities.shape
    down, across = (axis.ravel() for axis in np.mgrid[:height, :width].astype(float))
    position = np.stack([across, down], axis=1)
    colour = image.reshape(-1, 3).astype(float)
    seen = np.concatenate([position / config.bilateral_sxy, colour / config.bilateral_srgb], axis=1)
    weights = config.gaussian_compat * _kernel(position / config.gaussian_sxy)
    weights += config.bilateral_compat * _kernel(seen)
    energy = -np.log(np.clip(probabilities, 1e-5, 1).astype(float)).reshape(labels, -1)
    posterior = _softmax(-energy)
    for _ in range(config.iterations):
        posterior = _softmax(-energy + posterior @ weights)
    return posterior.reshape(labels, height, width)


def _kernel(features: np.ndarray) -> np.ndarray:
    distances = ((features[:, None] - features[None]) ** 2).sum(axis=2)
    kernel = np.exp(-distances / 2)
    scale = 1 / np.sqrt(kernel.sum(axis=1))
    return scale[:, None] * kernel * scale[None]


def _softmax(logits: np.ndarray) -> np.ndarray:
    exponentials = np.exp(logits - logits.max(axis=0))
    return exponentials / exponentials.sum(axis=0)
