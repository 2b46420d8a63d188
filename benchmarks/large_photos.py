"""What masks of a large photo cost: with the CRF at a bounded long side, and at the photo's own.

Each case runs in a process of its own, from the JPEG to both PNGs, as the masks stage does it.
"""

from __future__ import annotations

import argparse
import importlib
import multiprocessing
import resource
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from wsss.artifacts.digest import digest_file
from wsss.config.labels import CrfConfig, MasksConfig
from wsss.data.images.label_png import save_label_png
from wsss.data.images.read import image_size
from wsss.masks.make import MaskTask, make_mask


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photo", type=Path, help="a photo (default: blobs and noise)")
    parser.add_argument("--megapixels", type=float, default=12, help="4:3 (default: 12)")
    parser.add_argument("--tags", type=int, default=2, help="of the photo (default: 2)")
    parser.add_argument(
        "--long-side", type=int, default=CrfConfig().long_side, help="(default: %(default)s)"
    )
    parser.add_argument("--backend", default="auto", help="of the CRF (default: %(default)s)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "photo.jpg")
        write_photo(path, options.photo, options.megapixels)
        results = {
            side: in_process(path, options.tags, side, options.backend)
            for side in (options.long_side, None)
        }
    bounded, exact = results.values()
    print("| CRF at | processor time, s | memory, MB | labels as at its own size |")
    print("|---|---:|---:|---:|")
    for side, (seconds, megabytes, label) in results.items():
        same = 100 * np.mean(label == exact[2])
        print(f"| {side or 'its own size'} | {seconds:.1f} | {megabytes:.0f} | {same:.1f} % |")
    seconds, megabytes = exact[0] / bounded[0], exact[1] / bounded[1]
    print(f"\nbounded: 1/{seconds:.0f} of the processor time, 1/{megabytes:.1f} of the memory")


def write_photo(path: Path, photo: Path | None, megapixels: float) -> None:
    """A JPEG of this size: a photo scaled to it, or blobs, with the noise of a sensor."""
    height = round((megapixels * 1e6 * 3 / 4) ** 0.5)
    size = (height * 4 // 3, height)
    rng = np.random.default_rng(0)
    if photo is None:
        source = rng.integers(0, 256, (9, 12, 3), dtype=np.uint8)
    else:
        source = np.asarray(Image.open(photo).convert("RGB"))
    large = cv2.resize(source, size, interpolation=cv2.INTER_CUBIC).astype(np.int16)
    large += np.rint(rng.normal(0, 3, large.shape)).astype(np.int16)
    Image.fromarray(large.clip(0, 255).astype(np.uint8)).save(path, quality=92)


def in_process(
    path: Path, tags: int, long_side: int | None, backend: str
) -> tuple[float, float, np.ndarray]:
    """Processor seconds, peak memory in MB and the labels, of a new process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(masks_of, (path, tags, long_side, backend))


def masks_of(
    path: Path, tags: int, long_side: int | None, backend: str
) -> tuple[float, float, np.ndarray]:
    """See `in_process`."""
    width, height = image_size(path)
    scores = np.random.default_rng(1).random((tags, 6, 8)).astype(np.float16)
    task = MaskTask(path, digest_file(path), height, width, tuple(range(tags)), scores)
    crf = CrfConfig.model_validate({"long_side": long_side, "backend": backend})
    config = MasksConfig(crf=crf)
    if crf.backend == "torch":
        importlib.import_module("wsss.labels.lattice_crf")  # once per process, not per photo
    cv2.setNumThreads(1)
    start = time.process_time()
    mask = make_mask(task, config=config, max_pixels=10**9)
    for product in ("label", "train"):
        save_label_png(path.with_name(f"{product}.png"), getattr(mask, product))
    seconds = time.process_time() - start
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit, mask.label


if __name__ == "__main__":
    main()
