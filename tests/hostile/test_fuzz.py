"""Random and mutated files: every reader returns a value or raises an error of the project.

``WSSS_FUZZ`` is the number of cases per test, 60 by default; docs/explanation/security.md has the
figures of a deep run. Readers of HDF5 run in children, since a C library may crash.
"""

import io
import os
import pickle
import random
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.builders import write_shard
from wsss.artifacts.errors import ArtifactError
from wsss.artifacts.shard import Item, Shard
from wsss.cams.external.pickle_reader import read_npy
from wsss.cams.external.seed_files import read_external_cams
from wsss.config.load import from_mapping, load_config
from wsss.config.render import default_yaml
from wsss.config.runs import expand_runs
from wsss.data.datasets.classes import folder_classes
from wsss.data.datasets.files import read_lines
from wsss.data.datasets.tag_table import TagTable, read_table
from wsss.data.datasets.tags import TagReader
from wsss.data.datasets.voc import read_annotation
from wsss.errors import WsssError

from .harness import in_child
from .payloads import maps, npy
from .test_shards import good

CASES = int(os.environ.get("WSSS_FUZZ", "60"))
RULES = settings(
    max_examples=CASES,
    deadline=None,
    database=None,
    derandomize="WSSS_FUZZ" not in os.environ,
    suppress_health_check=list(HealthCheck),
)
GROWTH = 2**31
PRESETS = sorted((Path(__file__).parents[2] / "workflow/presets").glob("*.yaml"))


@contextmanager
def bounded() -> Iterator[None]:
    """Memory may not grow by more than two gigabytes; `WsssError` is how a reader may end."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm") as stream:
        size = int(stream.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + GROWTH, hard))
    message = "read"
    try:
        yield
    except WsssError as error:
        message = str(error)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    assert 0 < len(message) < 20_000


def mutated(originals: list[bytes], words: list[bytes]) -> st.SearchStrategy[bytes]:
    """Valid files with bytes flipped, cut, doubled, moved, or words of the format inserted."""

    @st.composite
    def make(draw: st.DrawFn) -> bytes:
        content = bytearray(draw(st.sampled_from(originals)))
        for _ in range(draw(st.integers(1, 8))):
            begin = draw(st.integers(0, max(0, len(content) - 1)))
            end = min(len(content), begin + draw(st.integers(1, 64)))
            kind = draw(st.integers(0, 6))
            if kind == 0 and content:
                content[begin] ^= draw(st.integers(1, 255))
            elif kind == 1:
                del content[begin:end]
            elif kind == 2:
                content[begin:begin] = content[begin:end] * draw(st.integers(1, 3))
            elif kind == 3:
                content[begin:begin] = draw(st.sampled_from(words))
            elif kind == 4:
                content[begin:end] = draw(st.sampled_from(words))
            elif kind == 5:
                content[begin:begin] = draw(st.binary(max_size=12))
            elif kind == 6:
                del content[begin + 1 :]
        return bytes(content)

    return make()


def fuzz_file(
    path: Path, originals: list[bytes], words: list[bytes], *readers: Callable[[Path], object]
) -> None:
    """Each reader reads mutated and random files at `path`."""

    @RULES
    @given(st.one_of(st.binary(max_size=200), mutated(originals, words)))
    def fuzz(content: bytes) -> None:
        path.write_bytes(content)
        for read in readers:
            with bounded():
                read(path)

    fuzz()


YAML_WORDS = [
    b"{", b"}", b"[", b"]", b": ", b"- ", b"&a ", b"*a", b"!!python/object:os.x ", b"!!int ",
    b"<<: ", b"\n", b"\t", b"'", b'"', b"|\n", b"? ", b"---\n", b"...", b"%YAML 9.9\n", b"#",
    b"null", b".nan", b"-.inf", b"1e999", b"0x" + b"f" * 40, b"2001-99-99", b"1:99:99", b"\x00",
    b"\xff", b"\xef\xbb\xbf", b"sweep: {seed: [1, 2]}\n", b"runs: {a: {}, b: {}}\n", b"!!binary ",
    b"matrix: {cams: {a: {}}}\n", b"data: {root: '${HOME}'}\n", b"{run}", b"../", b"~", b"!!set ",
]  # fmt: skip
CONFIGS = [default_yaml().encode()[:6000], *(p.read_bytes() for p in PRESETS)]


def test_config_bytes(tmp_path: Path) -> None:
    fuzz_file(tmp_path / "run.yaml", CONFIGS, YAML_WORDS, load_config)


SECTIONS = sorted(from_mapping({}).model_dump(mode="json"))
KEYS = {
    name: sorted(v)
    for name, v in from_mapping({}).model_dump(mode="json").items()
    if v and isinstance(v, dict)
}
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["auto", "..", "train", "val", "a/b", "{run}", "x" * 300, 10**400, -1]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=6) | st.sampled_from(SECTIONS), inner, max_size=4)
    ),
    max_leaves=8,
)


@RULES
@given(st.data())
def test_config_mappings(data: st.DataObject) -> None:
    """Known keys with values of any kind."""
    mapping: dict[str, Any] = {}
    for name in data.draw(st.lists(st.sampled_from(SECTIONS), max_size=4)):
        keys = KEYS.get(name)
        inner = st.dictionaries(st.sampled_from(keys), VALUES, max_size=3) if keys else VALUES
        mapping[name] = data.draw(st.one_of(inner, VALUES))
    with bounded():
        expand_runs(mapping)


TABLES = [
    b"image,tags\na.jpg,cat\nb.jpg,cat;dog\n",
    "Datei;image;labels;split\r\n1;caf\u00e9.jpg;teddy bear;train\r\n".encode(),
    "image\ttags\nfolder/a b.jpg\tcat\n".encode("utf-16"),
    b'\xef\xbb\xbfimage,tags\n"a,b.jpg","cat, dog"\n\n',
]
TABLE_WORDS = [
    b",", b";", b"\t", b"\n", b"\r", b'"', b"|", b"image", b"tags", b"split", b"\x00", b"\xff\xfe",
    b"\xef\xbb\xbf", b"x" * 140000, b"cat;" * 3000, b"../", b"\\", "\u0301".encode(),
    b"\xed\xa0\x80",
]  # fmt: skip


def test_tables_and_lists(tmp_path: Path) -> None:
    reader = TagReader(folder_classes(["cat", "dog", "teddy bear"]))

    def find(path: Path) -> object:
        return TagTable(path, reader).find("a")

    fuzz_file(tmp_path / "tags.csv", TABLES, TABLE_WORDS, read_table, find, read_lines)


ANNOTATIONS = [
    b"<annotation><size><width>9</width></size><object><name>cat</name></object></annotation>",
    b'<?xml version="1.0" encoding="utf-8"?>\n<a><!-- x --><object><name>&lt;</name></object></a>',
]
XML_WORDS = [
    b"<", b">", b"&", b";", b"<!DOCTYPE a [", b'<!ENTITY x "y">', b"]>", b"&x;", b"<![CDATA[",
    b"]]>", b"<?x ?>", b"xmlns='u'", b"encoding='utf-7'", b"\x00", b"\xff\xfe", b"<object>" * 500,
]  # fmt: skip


def test_annotations(tmp_path: Path) -> None:
    fuzz_file(tmp_path / "a.xml", ANNOTATIONS, XML_WORDS, read_annotation)


def _seed_files(folder: Path) -> list[bytes]:
    contents: list[Any] = [
        maps((4, 5)),
        {"keys": np.array([0, 1]), "high_res": np.zeros((2, 4, 5), np.float16)},
        {"keys": torch.tensor([0, 1]), "attn_highres": np.zeros((2, 4, 5), np.float16)},
        {0: np.float32(1), "a": [1, 2], "b": None},
    ]
    files = []
    for content in contents:
        for protocol in (0, 2, 4, 5):
            box = np.empty((), object)
            box[()] = content
            files.append(npy(folder / "x.npy", pickle.dumps(box, protocol)).read_bytes())
    plain = io.BytesIO()
    np.save(plain, np.zeros((4, 5), np.float32))
    return [*files, plain.getvalue()]


PICKLE_WORDS = [
    b".", b"R", b"b", b"t", b"\x85", b"\x86", b"(", b")", b"}", b"]", b"s", b"u", b"a", b"e", b"0",
    b"\x93", b"\x94", b"\x81", b"\x92", b"Q", b"P", b"i", b"o", b"2", b"h\x00", b"q\xff", b"\x95",
    b"r\xff\xff\xff\x7f", b"\x8e\xff\xff\xff\xff\xff\xff\x00\x00", b"cos\nsystem\n",
    b"\x8fK\x01\x90", b"cnumpy\nndarray\n", b"cnumpy\ndtype\n",
    b"ctorch._utils\n_rebuild_tensor_v2\n", b"I9\n", b"cnumpy.core.multiarray\n_reconstruct\n",
    b"cnumpy.core.multiarray\nscalar\n", b"L9L\n", b"cnumpy._core.numeric\n_frombuffer\n",
    b"c_codecs\nencode\n", b"ctorch.storage\n_load_from_bytes\n", b"\x8c\x02f4", b"\x8c\x01O",
    b"J\xff\xff\xff\x7f", b"\x8a\t" + b"\xff" * 8 + b"\x7f", b"N", b"(5000, 5000)", b"'|O'",
    b"'<f4'", b"(-1,)", b"True", b"{'descr': ", b"\x93NUMPY\x02\x00",
]  # fmt: skip


def test_seeds(tmp_path: Path) -> None:
    def read_cams(path: Path) -> object:
        return read_external_cams(path, "npy", (0, 1), (4, 5))

    fuzz_file(tmp_path / "a.npy", _seed_files(tmp_path), PICKLE_WORDS, read_npy, read_cams)


def _mutate(random: random.Random, content: bytes) -> bytes:
    """One to eight changes of a binary file; some insert numbers where lengths may be."""
    changed = bytearray(content)
    for _ in range(random.randint(1, 8)):
        begin = random.randrange(len(changed))
        kind = random.randrange(4)
        if kind == 0:
            changed[begin] ^= 1 << random.randrange(8)
        elif kind == 1:
            width = random.choice((1, 2, 4, 8))
            value = random.choice((0, 1, 2**7, 2**31, 2**63 - 1, 2**64 - 1, len(content)))
            changed[begin : begin + width] = (value % 2 ** (8 * width)).to_bytes(width, "little")
        elif kind == 2:
            other, length = random.randrange(len(changed)), random.randint(1, 64)
            changed[begin : begin + length] = changed[other : other + length]
        else:
            del changed[random.randrange(len(changed) // 2, len(changed)) :]
    return bytes(changed)


def test_shards(tmp_path: Path) -> None:
    """Mutated and random files instead of shards; each child reads fifty."""
    whole = tmp_path / "whole.h5"
    small = good(whole).read_bytes()
    originals = [small, _large(tmp_path / "large.h5")]
    path = tmp_path / "a.h5"
    refused = crashed = 0
    for start in range(0, CASES, 50):
        seeds = range(start, min(start + 50, CASES))

        def read(seeds: range = seeds) -> None:
            for seed in seeds:
                rng = random.Random(seed)
                content = _mutate(rng, rng.choice(originals)) if seed % 8 else rng.randbytes(900)
                path.write_bytes(content)
                try:
                    with Shard(path) as shard:
                        list(shard)
                except ArtifactError as error:
                    print("refused" if "a.h5: " in str(error) else f"unnamed: {error}", flush=True)

        outcome = in_child(read, seconds=20.0)
        refused += outcome.text.count("refused")
        crashed += outcome.code < 0
        assert outcome.code <= 0, outcome.text
        assert "unnamed" not in outcome.text, outcome.text
    print(f"{CASES} files: {refused} refused, {crashed} children killed by HDF5")
    assert refused > CASES // 4
    assert not crashed


def _large(path: Path) -> bytes:
    """A shard with packed arrays."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, (2, 64, 48), dtype=np.uint8)
    write_shard(path, "masks", (
        Item(image, {"label": label, "train": label}, {"classes": [0]}, "k")
        for image, label in zip("ab", labels, strict=True)
    ))  # fmt: skip
    assert h5py.is_hdf5(path)
    return path.read_bytes()
