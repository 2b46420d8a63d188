"""Cost of CAMs by image encoder: `python -m benchmarks.encoders`.

Grad-CAM of two classes with the affinity of a 512 x 384 photograph (long side 512, rounded up to
whole patches), weights random, on one thread. Each encoder runs in a process of its own: its image
tower's parameters, tokens, counted operations, median seconds, and peak memory with both towers.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import statistics
import time
from typing import Any

import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from wsss._compat import import_open_clip
from wsss._compat.timm_towers import import_timm_towers
from wsss.cams.affinity import propagate
from wsss.cams.grad_cam import grad_cam
from wsss.cams.maps import scale_maps
from wsss.clip.encoder import ClipEncoder
from wsss.clip.images import input_size
from wsss.clip.text.embeddings import TextBank
from wsss.config.cams import CamsConfig

ENCODERS = (
    "ViT-B-16-quickgelu", "ViT-L-14-quickgelu", "ViT-L-14-336-quickgelu",
    "EVA02-B-16", "EVA02-L-14", "ViT-B-16-SigLIP",
)  # fmt: skip
_BACKGROUNDS = 25


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("encoders", nargs="*", help=f"open_clip models (default: {ENCODERS})")
    parser.add_argument("--rounds", type=int, default=3, help="photographs (default: 3)")
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    print(f"{'encoder':24} parameters  tokens  GFLOP  seconds  peak GiB")
    for name in options.encoders or ENCODERS:
        with context.Pool(1) as pool:
            print(pool.apply(measure, (name, options.rounds)), flush=True)


def measure(name: str, rounds: int) -> str:
    """One line of the table."""
    torch.set_num_threads(1)
    import_timm_towers()
    model: Any = import_open_clip().create_model(name)
    encoder = ClipEncoder(model.eval().visual)
    images = torch.randn(1, 3, *input_size(384, 512, encoder.patch, long_side=512))
    generator = torch.Generator().manual_seed(0)
    width = encoder.encode_image(images).shape[1]
    texts = F.normalize(torch.randn(2 + _BACKGROUNDS, width, generator=generator), dim=-1)
    bank, cams = TextBank(texts[:2], texts[2:]), CamsConfig()

    @torch.inference_mode()
    def run() -> None:
        blocks = cams.affinity.blocks_of(encoder.depth)
        raw = grad_cam(encoder, images, [[0, 1]], bank, attention_blocks=blocks)
        assert raw.attention is not None
        propagate(raw.attention, scale_maps(raw.maps.relu()), raw.image_index, cams)

    on_cpu = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu  # unknown to the counter
    with FlopCounterMode(display=False, custom_mapping={on_cpu: _attention}) as counter:
        run()
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    rows, columns = (
        side // patch for side, patch in zip(images.shape[2:], encoder.patch, strict=True)
    )
    tokens = rows * columns + encoder.has_class_token
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return (
        f"{name:24} {encoder.parameter_count / 1e6:8.1f} M  {tokens:6}  "
        f"{counter.get_total_flops() / 1e9:5.0f}  {statistics.median(seconds):7.2f}  {peak:8.2f}"
    )


def _attention(queries: Any, keys: Any, values: Any, *_: Any, **__: Any) -> int:
    """Operations of fused attention, by shapes."""
    return int(sdpa_flop_count(queries, keys, values))


if __name__ == "__main__":
    main()
