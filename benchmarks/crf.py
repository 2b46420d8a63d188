"""The CRF on torch, as ratios to pydensecrf in one run: `python -m benchmarks.crf`.

Processor time on one thread, from energies and image to the posterior, 375 x 500 pixels. Rounds are
interleaved. The median ratio is printed, with those of the fastest and the slowest round.

- new size: the lattice of the smoothness kernel is built, too;
- same size: it is that of the image before, as in most of a data set.

`--photos FOLDER` takes photographs in the place of invented ones. `--agreement FOLDER` compares the
posteriors on photographs of a VOC folder instead: of its truth, softened and with noise, and of the
CAMs in its `seeds/cams_eighth.npz`, where there are any.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image

from benchmarks.timing import interleaved, ratios
from wsss.config.labels import CrfConfig
from wsss.labels import lattice_crf
from wsss.labels.crf import dense_crf, posterior, unary_energy

HEIGHT, WIDTH = 375, 500
LABELS = (2, 3, 5, 21, 81)
PYDENSECRF, TORCH = CrfConfig(backend="pydensecrf"), CrfConfig(backend="torch")


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds (default: 5)")
    parser.add_argument(
        "--labels", type=int, nargs="+", default=LABELS, help="(default: %(default)s)"
    )
    parser.add_argument("--photos", type=Path, help="folder of JPEGs, one per round")
    parser.add_argument("--agreement", type=Path, help="folder of VOC: compare the posteriors")
    parser.add_argument("--images", type=int, default=20, help="of --agreement (default: 20)")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    if options.agreement:
        figures = compare(options.agreement, options.images)
    else:
        images = photographs(options.photos) if options.photos else [invented()]
        figures = measure(images, options.labels, options.rounds)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def measure(images: list[np.ndarray], labels: list[int], rounds: int) -> dict[str, Any]:
    """All timings; prints the table."""
    print(f"{processor()}, one thread, {rounds} rounds of processor time\n")
    print("| labels | pydensecrf, s | torch, new size / it | torch, same size / it |")
    print("|---:|---:|---:|---:|")
    figures: dict[str, Any] = {"processor": processor(), "rounds": rounds}
    for count in labels:
        unary = unary_energy(smooth_probabilities(count), TORCH)
        turn = iter(range(10**9))

        def run(
            config: CrfConfig,
            *,
            fresh: bool = False,
            unary: np.ndarray = unary,
            turn: Iterator[int] = turn,
        ) -> None:
            if fresh:
                lattice_crf.clear_cache()
            posterior(unary, images[next(turn) // 3 % len(images)], config)

        tasks: dict[str, Callable[[], object]] = {
            "pydensecrf": partial(run, PYDENSECRF),
            "new": partial(run, TORCH, fresh=True),
            "same": partial(run, TORCH),
        }
        times = interleaved(tasks, rounds, clock=time.process_time)
        base = times["pydensecrf"]
        cells = {name: ratios(times[name], base) for name in ("new", "same")}
        figures[str(count)] = {"seconds": times, "ratios": cells}
        shown = (
            f"{statistics.median(x):.2f} ({min(x):.2f} … {max(x):.2f})" for x in cells.values()
        )
        print(f"| {count} | {statistics.median(base):.2f} | {' | '.join(shown)} |", flush=True)
    return figures


def smooth_probabilities(labels: int) -> np.ndarray:
    """Float32 [labels, h, w], sum to one."""
    coarse = np.random.default_rng(0).random((labels, 8, 10), dtype=np.float32)
    planes = np.stack([cv2.resize(plane, (WIDTH, HEIGHT)) for plane in coarse])
    return planes / planes.sum(0)


def invented() -> np.ndarray:
    """Blobs with the noise of a sensor."""
    generator = np.random.default_rng(0)
    blobs = generator.integers(0, 256, (9, 12, 3), dtype=np.uint8)
    large = cv2.resize(blobs, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    return (large + generator.normal(0, 3, large.shape)).clip(0, 255).astype(np.uint8)


def photographs(folder: Path) -> list[np.ndarray]:
    """The first photographs of a folder at the size of the benchmark."""
    paths = sorted(folder.glob("*.jpg"))[:: max(1, len(list(folder.glob("*.jpg"))) // 20)]
    photos = [np.asarray(Image.open(path).convert("RGB")) for path in paths]
    return [cv2.resize(photo, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA) for photo in photos]


def compare(voc: Path, images: int) -> dict[str, Any]:
    """Differences of the posteriors; prints the worst of all images."""
    figures: dict[str, Any] = {}
    print("| probabilities | images | largest difference | mean difference | same labels, least |")
    print("|---|---:|---:|---:|---:|")
    for name, cases in (("truth", truth_scores), ("CAMs", cam_scores)):
        worst, means, agreement = 0.0, [], 1.0
        for photo, scores in cases(voc, images):
            first, second = (dense_crf(scores, photo, config) for config in (PYDENSECRF, TORCH))
            worst = max(worst, float(np.abs(first - second).max()))
            means.append(float(np.abs(first - second).mean()))
            agreement = min(agreement, float(np.mean(first.argmax(0) == second.argmax(0))))
        if means:
            figures[name] = {"largest": worst, "mean": float(np.mean(means)), "same": agreement}
            print(
                f"| {name} | {len(means)} | {worst:.4f} | {np.mean(means):.1e} | "
                f"{100 * agreement:.4f} % |"
            )
    return figures


def truth_scores(voc: Path, images: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Photo and probabilities: the truth, blurred, with noise."""
    generator = np.random.default_rng(0)
    paths = sorted((voc / "SegmentationClass").glob("*.png"))
    for path in paths[:: max(1, len(paths) // images)][:images]:
        truth = np.array(Image.open(path))
        classes = sorted({0, *np.unique(truth).tolist()} - {255})
        planes = [cv2.GaussianBlur((truth == c).astype(np.float32), (0, 0), 12) for c in classes]
        scores = np.stack(planes) + generator.uniform(0, 0.3, (len(classes), *truth.shape))
        yield photo_of(voc, path.stem), (scores / scores.sum(0)).astype(np.float32)


def cam_scores(voc: Path, images: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Photo and score stack: the CAMs behind ``1 - largest``, as the masks stage has them."""
    path = voc / "seeds/cams_eighth.npz"
    if not path.is_file():
        return
    with np.load(path) as arrays:
        ids = sorted({name.split("/")[0] for name in arrays.files})
        for image in ids[:: max(1, len(ids) // images)][:images]:
            height, width = (int(side) for side in arrays[f"{image}/size"])
            maps = [
                cv2.resize(plane.astype(np.float32), (width, height)).clip(0, 1)
                for plane in arrays[f"{image}/map"]
            ]
            yield photo_of(voc, image), np.stack([1 - np.max(maps, axis=0), *maps])


def photo_of(voc: Path, image: str) -> np.ndarray:
    """RGB."""
    return np.asarray(Image.open(voc / "JPEGImages" / f"{image}.jpg").convert("RGB"))


def processor() -> str:
    """Its name, as far as the system tells."""
    lines = (
        Path("/proc/cpuinfo").read_text("utf-8").splitlines()
        if platform.system() == "Linux"
        else []
    )
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


if __name__ == "__main__":
    main()
