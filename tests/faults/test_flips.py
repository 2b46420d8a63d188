"""A changed byte in any file that a later stage reads is detected before use, or harmless.

`WSSS_FLIPS` is how many bytes of each file are changed, one at a time, besides the first.
"""

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
_FIRST = 2 * FLIPS  # bytes of the header, each of which is changed
_HANGING = 60  # seconds
_ERRORS = (ArtifactError, ImageError, TruthError)
_REMEDY = re.compile(r"rerun|again|restore|run ingest|wsss truth|left alone|older checkpoint")
Reader = Callable[[Path], str]


def shard(path: Path) -> str:
    """Everything that a stage can read from a shard."""
    with Shard(path) as opened:
        items = [
            [i.id, i.key, dict(i.attrs), digest_arrays(i.arrays), opened.key(i.id)] for i in opened
        ]
        return digest_json([opened.kind, opened.content, opened.provenance.model_dump(), items])


def checkpoint(path: Path) -> str:
    tensors, origin = load_checkpoint(path)
    return digest_json([weights_digest(tensors), origin.model_dump()])


def state(path: Path) -> str:
    tensors, facts = load_tensors(path, "it is left alone")
    return digest_json([weights_digest(tensors), facts])


def resumable(path: Path) -> str:
    """What `SegmenterRunner` does before it resumes."""
    runner._check(path)
    loaded = runner.load_mmengine_checkpoint(path)
    return weights_digest(loaded["state_dict"])


def manifest(path: Path) -> str:
    samples, classes = load(path.parent)
    return digest_json([list(map(str, samples)), str(classes)])


def records(path: Path) -> str:
    loaded = read_records([path])
    counts = [read_image_counts(record, path) for record in loaded if record.image_counts]
    totals = [[record.ids, record.total().tolist(), record.cell.tolist()] for record in counts]
    return digest_json([[record.model_dump(mode="json") for record in loaded], totals])


def bank(path: Path) -> str:
    features = embeddings._read(path, _words)
    if features is None:  # it is computed again
        raise ArtifactError(f"{path}: made again")
    return str(features.tolist())


def remembered(path: Path) -> str:
    entries = DecodeCache(path)._entries
    if not entries:
        raise ArtifactError(f"{path}: all is decoded again")
    return str(entries)


_words: list[str] = []


def _cases(undisturbed: Undisturbed) -> dict[str, tuple[Path, Reader]]:
    """By name: the file, in a folder that has what the reader needs, and the reader."""
    base = undisturbed.base
    segmenter, step = _small(base)
    png = min((base / "masks/png/train").iterdir())
    cached = min((base / "cache").glob("text-*.safetensors"))
    global _words
    _words = json.loads(load_tensors(cached, "")[1]["words"])

    def tags(path: Path) -> str:
        return read_checked_text(path.with_name("tags.csv"), "run `wsss truth tags` again")

    def drawn(path: Path) -> str:
        folder = path.parent / "crowd_void"  # where the mark of this rule is looked for
        if not folder.exists():
            folder.symlink_to(path.parent)
        check_drawn(path.parent, "val", "crowd_void", base / "coco")
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
        "refiner's state": (_states(base / "refine-train") / "state.safetensors", state),
        "segmenter's state": (step, resumable),
        "that state's digest": (sidecar(step), iter_digest),
        "cost of a training": (base / "refine-train/efficiency.json", cost),
        "mask PNG": (png, pixels),
        "mark of COCO's masks": (base / "truth-coco-masks/masks/crowd_void/val2014.json", drawn),
        "text embeddings": (cached, bank),
    }


def _states(folder: Path) -> Path:
    """Where the one training of a folder has its states."""
    (states,) = (path for path in (folder / "work").iterdir() if path.is_dir())
    return states


def _small(base: Path) -> tuple[Path, Path]:
    """The segmenter's weights and state with short tensors: 15 and 45 MB take long to digest."""
    folder = base / "small"
    folder.mkdir(exist_ok=True)
    tensors, origin = load_checkpoint(base / "retrain/c.safetensors")
    weights, state = folder / "weights/c.safetensors", folder / "state/iter_6.pth"
    save_checkpoint(
        weights, {name: tensor.flatten()[:9] for name, tensor in tensors.items()}, origin
    )
    loaded = runner.load_mmengine_checkpoint(max(_states(base / "retrain").glob("iter_*.pth")))
    loaded["optimizer"] = {}
    loaded["state_dict"] = {n: v.flatten()[:9].clone() for n, v in loaded["state_dict"].items()}
    state.parent.mkdir(exist_ok=True)
    torch.save(loaded, state)
    sidecar(state).write_text(digest_file(state))
    return weights, state


def test_flips(
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
    offsets = list(range(min(size, _FIRST)))
    if size > _FIRST:
        offsets += sorted(choice.randrange(_FIRST, size) for _ in range(FLIPS))
    masks = [choice.randrange(1, 256) for _ in offsets]
    expected = reader(path)
    counts: Counter[str] = Counter()
    start = 0
    while start < len(offsets):  # a process may crash on damage; the next continues behind it
        outcomes = _in_process(path, reader, expected, offsets[start:], masks[start:])
        for offset, outcome in zip(offsets[start:], outcomes, strict=False):
            assert outcome in {"detected", "harmless"}, f"{name}, byte {offset}: {outcome}"
            counts.update({"flips": 1, outcome: 1})
        assert len(outcomes) == len(offsets) - start, (
            f"{name}: the process died at byte {offsets[start + len(outcomes)]}"
        )
        start += len(outcomes)
    assert reader(path) == expected
    return counts


def _in_process(
    path: Path, reader: Reader, expected: str, offsets: Sequence[int], masks: Sequence[int]
) -> list[str]:
    """The outcome of each flip, up to the one at which the process died."""
    away, here = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.close(away)
            with os.fdopen(here, "w") as answers:
                for offset, mask in zip(offsets, masks, strict=True):
                    signal.alarm(_HANGING)
                    print(json.dumps(_flip(path, reader, expected, offset, mask)), file=answers)
                    answers.flush()
        finally:
            os._exit(0)
    os.close(here)
    with os.fdopen(away) as answers:
        outcomes = [json.loads(line) for line in answers]
    os.waitpid(pid, 0)
    return outcomes


def _flip(path: Path, reader: Reader, expected: str, offset: int, mask: int) -> str:
    """detected, harmless, or the failure."""
    with path.open("r+b", buffering=0) as stream:
        stream.seek(offset)
        (value,) = stream.read(1)
        stream.seek(offset)
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
            stream.seek(offset)
            stream.write(bytes([value]))
