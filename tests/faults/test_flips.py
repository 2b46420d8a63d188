"""One changed byte in anything that a later stage reads is noticed before use, or changes nothing.

`WSSS_FLIPS` is how many bytes of each file are changed, one at a time, beside the first ones.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from wsss.artifacts.checkpoint import load_checkpoint, load_tensors, save_checkpoint
from wsss.artifacts.checkpoint_header import checkpoint_weights
from wsss.artifacts.checksum import read_checked_text, sidecar
from wsss.artifacts.digest import digest_arrays, digest_file, digest_json
from wsss.artifacts.errors import ArtifactError
from wsss.artifacts.shard import Shard
from wsss.clip.text import embeddings
from wsss.clip.weights import weights_digest
from wsss.data.errors import ImageError
from wsss.data.images.decode import DecodeCache
from wsss.data.images.label_png import read_label_png
from wsss.data.manifest_folder import load
from wsss.retrain import runner
from wsss.score.image_counts_file import read_image_counts
from wsss.score.record import read_records
from wsss.score.tables.efficiency import read_efficiency
from wsss.score.truth.coco_masks import check_drawn
from wsss.score.truth.errors import TruthError

from .conftest import Undisturbed

pytestmark = pytest.mark.slow
FLIPS = int(os.environ.get("WSSS_FLIPS", "60"))
_FIRST = 2 * FLIPS  # bytes from the start, where headers are, of which every one is changed
_HANGING = 60  # seconds
_ERRORS = (ArtifactError, ImageError, TruthError)
_REMEDY = re.compile(r"rerun|again|restore|run ingest|wsss truth|left alone|older checkpoint")
Reader = Callable[[Path], str]


def shard(path: Path) -> str:
    """All that a stage can ask of a shard."""
    with Shard(path) as found:
        items = [
            [i.id, i.key, dict(i.attrs), digest_arrays(i.arrays), found.key(i.id)] for i in found
        ]
        return digest_json([found.kind, found.content, found.provenance.model_dump(), items])


def checkpoint(path: Path) -> str:
    tensors, made = load_checkpoint(path)
    return digest_json([weights_digest(tensors), made.model_dump()])


def state(path: Path) -> str:
    tensors, facts = load_tensors(path, "it is left alone")
    return digest_json([weights_digest(tensors), facts])


def resumable(path: Path) -> str:
    """What `SegmenterRunner` does before it resumes."""
    runner._check(path)
    loaded = runner.load_mmengine_checkpoint(path)
    return weights_digest(loaded["state_dict"])


def manifest(path: Path) -> str:
    found, classes = load(path.parent)
    return digest_json([list(map(str, found)), str(classes)])


def records(path: Path) -> str:
    found = read_records([path])
    counts = [read_image_counts(one, path) for one in found if one.image_counts]
    totals = [[one.ids, one.total().tolist(), one.cell.tolist()] for one in counts]
    return digest_json([[one.model_dump(mode="json") for one in found], totals])


def bank(path: Path) -> str:
    found = embeddings._read(path, _words)
    if found is None:  # it is computed again, and nobody needs to know
        raise ArtifactError(f"{path}: made again")
    return str(found.tolist())


def remembered(path: Path) -> str:
    found = DecodeCache(path)._entries
    if not found:
        raise ArtifactError(f"{path}: all is decoded again")
    return str(found)


_words = 0


def _cases(undisturbed: Undisturbed) -> dict[str, tuple[Path, Reader]]:
    """By name: the file, in a folder that has what the reader needs, and the reader."""
    base = undisturbed.base
    segmenter, step = _small(base)
    png = min((base / "masks/png/train").iterdir())
    cached = min((base / "cache").glob("text-*.safetensors"))
    global _words
    _words = len(load_tensors(cached, "")[0]["features"])

    def tags(path: Path) -> str:
        return read_checked_text(path.with_name("tags.csv"), "run `wsss truth tags` again")

    def drawn(path: Path) -> str:
        check_drawn(path.parent, "val", base / "coco")
        return str(json.loads(path.read_text()))

    def without_torch(path: Path) -> str:
        return str(checkpoint_weights(path, "weclip"))

    def cost(path: Path) -> str:
        return str(read_efficiency(path))

    def pixels(path: Path) -> str:
        return digest_arrays({"labels": read_label_png(path)})

    def beside(path: Path) -> str:
        return manifest(path.with_name("manifest.csv"))

    def counts(path: Path) -> str:
        return records(path.with_name("r.json"))

    def iter_digest(path: Path) -> str:
        return resumable(path.with_suffix(""))

    return {
        "manifest": (base / "manifest/manifest.csv", manifest),
        "manifest's digest": (base / "manifest/manifest.csv.sha256", beside),
        "class list": (base / "manifest/classes.json", beside),
        "ingest's memory": (base / "ingest-2-processes/manifest/.cache/decoded.json", remembered),
        "tags of masks": (base / "truth-tags/tags.csv", tags),
        "tags' digest": (base / "truth-tags/tags.csv.sha256", tags),
        "CAMs": (base / "cams/x.h5", shard),
        "seeds": (base / "seeds/x.h5", shard),
        "scores": (base / "refine-apply/x.h5", shard),
        "masks": (base / "masks/x.h5", shard),
        "predictions": (base / "predict/x.h5", shard),
        "counts of images": (base / "score-cam/r.images.h5", counts),
        "records": (base / "score-cam/r.json", records),
        "refiner": (base / "refine-train/c.safetensors", checkpoint),
        "refiner, without torch": (base / "refine-train/c.safetensors", without_torch),
        "segmenter": (segmenter, checkpoint),
        "refiner's state": (base / "refine-train/work/state.safetensors", state),
        "segmenter's state": (step, resumable),
        "that state's digest": (sidecar(step), iter_digest),
        "cost of a training": (base / "refine-train/efficiency.json", cost),
        "mask PNG": (png, pixels),
        "mark of COCO's masks": (base / "truth-coco-masks/masks/val2014.json", drawn),
        "text embeddings": (cached, bank),
    }


def _small(base: Path) -> tuple[Path, Path]:
    """The segmenter's weights and state with short tensors: 15 and 45 MB take long to digest."""
    folder = base / "small"
    folder.mkdir(exist_ok=True)
    tensors, made = load_checkpoint(base / "retrain/c.safetensors")
    weights, state = folder / "weights/c.safetensors", folder / "state/iter_6.pth"
    save_checkpoint(weights, {name: one.flatten()[:9] for name, one in tensors.items()}, made)
    loaded = runner.load_mmengine_checkpoint(max((base / "retrain/work").glob("iter_*.pth")))
    loaded["optimizer"] = {}
    loaded["state_dict"] = {n: v.flatten()[:9].clone() for n, v in loaded["state_dict"].items()}
    state.parent.mkdir(exist_ok=True)
    torch.save(loaded, state)
    sidecar(state).write_text(digest_file(state))
    return weights, state


def test_flipped_bytes(
    undisturbed: Undisturbed, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    total: Counter[str] = Counter()
    lines = []
    for name, (path, reader) in _cases(undisturbed).items():
        shutil.copytree(path.parent, tmp_path / name)
        counts = _flip_all(tmp_path / name / path.name, reader, name)
        shutil.rmtree(tmp_path / name)
        total += counts
        lines.append(f"{name:24} " + " ".join(f"{counts[what]:7d}" for what in _COLUMNS))
    lines.append(f"{'total':24} " + " ".join(f"{total[what]:7d}" for what in _COLUMNS))
    with capsys.disabled():
        print("\n" + " " * 25 + " ".join(f"{what:>7}"[:7] for what in _COLUMNS))
        print("\n".join(lines))
    assert total["detected"] + total["harmless"] == total["flips"]
    assert total["detected"] > 0.9 * total["flips"]


_COLUMNS = ("flips", "detected", "harmless")


def _flip_all(path: Path, reader: Reader, name: str) -> Counter[str]:
    size, choice = path.stat().st_size, random.Random(f"flip {name}")
    places = list(range(min(size, _FIRST)))
    if size > _FIRST:
        places += sorted(choice.randrange(_FIRST, size) for _ in range(FLIPS))
    masks = [choice.randrange(1, 256) for _ in places]
    expected = reader(path)
    counts: Counter[str] = Counter()
    start = 0
    while start < len(places):  # a process may die of damage; the next goes on behind it
        outcomes = _in_process(path, reader, expected, places[start:], masks[start:])
        for place, outcome in zip(places[start:], outcomes, strict=False):
            assert outcome in {"detected", "harmless"}, f"{name}, byte {place}: {outcome}"
            counts.update({"flips": 1, outcome: 1})
        assert len(outcomes) == len(places) - start, (
            f"{name}: the process died at byte {places[start + len(outcomes)]}"
        )
        start += len(outcomes)
    assert reader(path) == expected
    return counts


def _in_process(
    path: Path, reader: Reader, expected: str, places: Sequence[int], masks: Sequence[int]
) -> list[str]:
    """What becomes of each flip, up to the one at which the process died."""
    away, here = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.close(away)
            with os.fdopen(here, "w") as answers:
                for place, mask in zip(places, masks, strict=True):
                    signal.alarm(_HANGING)
                    print(json.dumps(_flip(path, reader, expected, place, mask)), file=answers)
                    answers.flush()
        finally:
            os._exit(0)
    os.close(here)
    with os.fdopen(away) as answers:
        found = [json.loads(line) for line in answers]
    os.waitpid(pid, 0)
    return found


def _flip(path: Path, reader: Reader, expected: str, place: int, mask: int) -> str:
    """detected, harmless, or what is wrong."""
    with path.open("r+b", buffering=0) as stream:
        stream.seek(place)
        (value,) = stream.read(1)
        stream.seek(place)
        stream.write(bytes([value ^ mask]))
    try:
        return "harmless" if reader(path) == expected else "was read as another content"
    except _ERRORS as error:
        message = str(error)
        if path.name.removesuffix(".sha256") not in message and path.name not in message:
            return f"the message does not name the file: {message}"
        return "detected" if _REMEDY.search(message) else f"no remedy: {message}"
    except BaseException as error:
        return f"no error of ours: {error!r}"
    finally:
        with path.open("r+b", buffering=0) as stream:
            stream.seek(place)
            stream.write(bytes([value]))
