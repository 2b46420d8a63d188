"""The public door: quick to import, equal to the pipeline, clear about what it cannot use."""

import inspect
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import wsss
from tests.builders import clip_es_config, provenance, write_manifest_folder, write_shard
from tests.demo_checkpoints import DEMO, LABELS, PREDICT, write_refiner, write_segmenter
from wsss.api.clip import Clip
from wsss.api.models import Predictor
from wsss.api.results import ClassMaps
from wsss.artifacts.digest import digest_file
from wsss.artifacts.shard import Item
from wsss.artifacts.stage import STAGES
from wsss.cams import stage as cams_stage
from wsss.clip.text.knowledge import descriptions
from wsss.compute.numerics import Numerics, in_force
from wsss.config.labels import CrfConfig
from wsss.data.images.label_png import read_label_png, voc_palette
from wsss.data.manifest import Sample
from wsss.demo.scenes import render_scene
from wsss.errors import WsssError
from wsss.labels.crf import dense_crf
from wsss.labels.upsample import upsample
from wsss.masks import stage as masks_stage
from wsss.refine.predict import predict as predict_of_refiner
from wsss.retrain import predict

NAMES = [
    "Confusion", "Refiner", "Shard", "__version__", "dense_crf", "grad_cam", "load_clip",
    "load_config", "load_refiner", "load_segmenter", "patch_text_cams", "pixel_adaptive_refinement",
    "propagate", "pseudo_mask", "read_image",
]  # fmt: skip
SCENE = render_scene(0, "val", 14)
PHOTO, TAGS = SCENE.image, SCENE.tags  # bottle, house

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def clip() -> Clip:
    return wsss.load_clip("demo", device="cpu")


def test_the_import_is_instant_and_lazy() -> None:
    code = """
import sys, time
start = time.perf_counter()
import wsss
seconds = time.perf_counter() - start
heavy = {"torch", "numpy", "PIL", "pydantic"} & sys.modules.keys()
assert not heavy, heavy
wsss.read_image
assert "torch" not in sys.modules
for photo in (3, [["photo.png"]]):
    try:
        wsss.read_image(photo)
    except TypeError as error:
        assert "a photo is a path, a PIL image or a numpy array, not" in str(error), error
    else:
        raise AssertionError
print(seconds)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert float(result.stdout) < 0.2


def test_the_public_names() -> None:
    assert dir(wsss) == NAMES == wsss.__all__
    for name in NAMES:
        value = getattr(wsss, name)
        if inspect.isfunction(value):
            given = " ".join(map(str, inspect.signature(value).parameters.values()))
            assert name == "load_config" or not {"Config", "cache", "manifest"} & {given}
            assert inspect.getdoc(value)
    with pytest.raises(AttributeError, match="'wsss' has no attribute 'gradcam'"):
        _ = wsss.gradcam


def write_scene(folder: Path) -> None:
    """The scene and its manifest."""
    Image.fromarray(PHOTO).save(folder / "scene.png")
    height, width = PHOTO.shape[:2]
    tags = tuple(DEMO.names.index(tag) for tag in TAGS)
    photo = folder / "scene.png"
    sample = Sample("scene", "train", photo, width, height, digest_file(photo), tags)
    write_manifest_folder(folder, DEMO, [sample])


def _pipeline(folder: Path, source: str, affinity: dict[str, Any]) -> tuple[Item, Item]:
    """What the stages `cams` and `masks` make of the scene, as items of their shards."""
    cams_section = {"source": source, "affinity": affinity}
    config = clip_es_config({"cams": cams_section, "compute": {"device": "cpu"}})
    write_scene(folder)
    arguments = STAGES["cams"].arguments(config)
    cams_stage.run(folder, "train", (1, 1), folder / "cams.h5", folder / "cache", **arguments)
    with wsss.Shard(folder / "cams.h5", kind="cams") as shard:
        cams = shard.read("scene")
    attrs = {**cams.attrs, "split": "train"}
    item = Item("scene", {"score": cams.arrays["cam_affinity"]}, attrs, "key")
    write_shard(folder / "scores.h5", "scores", [item], provenance("refine_apply", weights={}))
    arguments = STAGES["masks"].arguments(config)
    masks_stage.run(folder, folder / "scores.h5", folder / "masks.h5", folder / "png", **arguments)
    with wsss.Shard(folder / "masks.h5", kind="masks") as shard:
        return cams, shard.read("scene")


@pytest.mark.parametrize(
    ("source", "affinity"),
    [
        ("grad_cam", {}),
        ("patch_text", {}),
        ("grad_cam", {"kind": "joined", "tau": 0.2}),
        ("patch_text", {"kind": "distribution", "power": 1}),
    ],
)
def test_the_numbers_are_those_of_the_stages(
    tmp_path: Path, clip: Clip, source: str, affinity: dict[str, Any]
) -> None:
    stored, masks = _pipeline(tmp_path, source, affinity)
    function = wsss.grad_cam if source == "grad_cam" else wsss.patch_text_cams
    words = {"classes": DEMO.names} if source == "patch_text" or affinity else {}
    cams = function(clip, PHOTO, TAGS, DEMO.backgrounds, affinity=affinity or True, **words)
    assert cams.tags == TAGS == ("bottle", "house")
    assert np.array_equal(cams.maps.astype(np.float16), stored.arrays["cam"])
    assert np.array_equal(cams.propagated.astype(np.float16), stored.arrays["cam_affinity"])
    assert cams.probabilities.tolist() == stored.attrs["probabilities"]
    result = wsss.pseudo_mask(PHOTO, cams.propagated, TAGS)
    labels = np.array([0, *(DEMO.names.index(tag) + 1 for tag in TAGS)], np.uint8)
    assert np.array_equal(labels[result.labels], masks.arrays["label"])
    train = result.with_ignore()
    assert np.array_equal(train == 255, masks.arrays["train"] == 255)
    assert 0 < (train == 255).mean() < 1


def test_the_parts_give_the_whole(clip: Clip) -> None:
    cams = wsss.grad_cam(clip, PHOTO, TAGS)
    assert np.array_equal(wsss.propagate(cams.attention, cams.maps), cams.propagated)
    assert np.allclose(clip.attention(PHOTO), cams.attention, atol=1e-6)
    patches = cams.attention[1:, 1:]
    assert np.allclose(wsss.propagate(patches, cams.maps), cams.propagated, atol=1e-5)
    scores = upsample(cams.propagated.astype(np.float16), PHOTO.shape[:2])
    stack = np.concatenate([1 - scores.max(0, keepdims=True), scores])
    posterior = wsss.dense_crf(PHOTO, stack)
    mask, confidence = wsss.pseudo_mask(PHOTO, cams.propagated)
    assert np.array_equal(posterior.argmax(0), mask)
    assert np.array_equal(posterior.max(0), confidence)
    refined = wsss.pixel_adaptive_refinement(PHOTO, stack)
    assert refined.shape == posterior.shape == (3, *PHOTO.shape[:2])
    assert wsss.grad_cam(clip, PHOTO, TAGS, affinity=False).propagated is None


def test_refined_scores_are_probabilities_once_they_are_scaled() -> None:
    """The weights of one average sum to 1.01, as published."""
    scores = np.random.default_rng(0).dirichlet([1, 1], (6, 8)).transpose(2, 0, 1)
    refined = wsss.pixel_adaptive_refinement(PHOTO, scores, iterations=20)
    assert np.allclose(refined.sum(0), 1.01**20, atol=1e-3)
    posterior = wsss.dense_crf(PHOTO, refined / refined.sum(0))
    assert np.allclose(posterior.sum(0), 1, atol=1e-5)


def test_the_defaults_of_the_crf_are_the_configured_ones() -> None:
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(wsss.dense_crf).parameters.items()
        if parameter.default is not parameter.empty
    }
    assert defaults.pop("backend") == "auto"
    assert defaults == CrfConfig(long_side=None).model_dump(include=set(defaults))
    stack = np.random.default_rng(0).random((3, *PHOTO.shape[:2]), np.float32)
    assert np.array_equal(wsss.dense_crf(PHOTO, stack), dense_crf(stack, PHOTO, CrfConfig()))


def test_words_and_descriptions_change_the_maps(clip: Clip) -> None:
    plain = wsss.grad_cam(clip, PHOTO, TAGS, ["grass"])
    other = wsss.grad_cam(clip, PHOTO, TAGS, ["grass"], prompts={"house": "house with a roof"})
    assert not np.array_equal(plain.probabilities, other.probabilities)
    assert not np.array_equal(plain.maps[1], other.maps[1])
    static = wsss.patch_text_cams(clip, PHOTO, TAGS, classes=DEMO.names)
    enriched = wsss.patch_text_cams(
        clip, PHOTO, TAGS, classes=DEMO.names, descriptions=descriptions(DEMO)
    )
    assert not np.array_equal(enriched.maps, static.maps)


def test_a_photo_is_a_path_a_picture_or_an_array(tmp_path: Path) -> None:
    Image.fromarray(PHOTO).save(tmp_path / "photo.png")
    turned = Image.fromarray(np.rot90(PHOTO).copy())
    turned.getexif()[0x0112] = 6  # shown after a quarter turn to the right
    forms = [tmp_path / "photo.png", str(tmp_path / "photo.png"), Image.fromarray(PHOTO), turned]
    for form in [*forms, PHOTO]:
        assert np.array_equal(wsss.read_image(form), PHOTO)
    grey = Image.fromarray(PHOTO[:, :, 0])
    assert np.array_equal(wsss.read_image(grey), np.repeat(PHOTO[:, :, :1], 3, axis=2))


def test_pictures_and_files(tmp_path: Path, clip: Clip) -> None:
    cams = wsss.grad_cam(clip, PHOTO, TAGS)
    result = wsss.pseudo_mask(PHOTO, cams.maps, TAGS)
    assert result.names == ("background", *TAGS)
    assert repr(cams) == "<ClassMaps of bottle, house on 14 x 15 patches>"
    assert repr(result) == "<Segmentation of 120 x 112 pixels into 3 labels>"
    pictures = [cams.overlay(), cams.overlay("house"), result.overlay()]
    assert {(picture.mode, picture.size) for picture in pictures} == {("RGB", pictures[0].size)}
    assert max(pictures[0].size) == 360
    assert np.abs(np.asarray(pictures[0], int) - np.asarray(pictures[1], int)).max() > 50
    assert cams.plot().width > result.plot().width // 2
    result.save(tmp_path / "mask.png")
    assert np.array_equal(read_label_png(tmp_path / "mask.png"), result.labels)
    replace(result, palette=result.palette[::-1]).save(tmp_path / "other.png")
    assert np.array_equal(read_label_png(tmp_path / "other.png"), result.labels)
    with Image.open(tmp_path / "other.png") as image:
        assert image.getpalette()[:3] == list(voc_palette()[255])
    for name in ("mask.jpg", "mask"):
        with pytest.raises(ValueError, match=f"{name}: labels are written as PNG alone"):
            result.save(tmp_path / name)
        assert not (tmp_path / name).exists()
    large = np.tile(PHOTO, (4, 4, 1))
    large_result = wsss.pseudo_mask(large, cams.maps, TAGS, crf=False)
    assert large_result.overlay().size == (large.shape[1], large.shape[0])
    with pytest.raises(ValueError, match=r"min_confidence: expected a number less .*found 95"):
        result.with_ignore(95.0)
    with pytest.raises(ValueError, match="no tag 'cat'; the tags are bottle, house"):
        cams.overlay("cat")


@pytest.mark.slow
@pytest.mark.parametrize("times", [1, 2])
def test_the_pictures_of_a_sheet_lie_side_by_side(clip: Clip, times: int) -> None:
    """Whatever the size of the photo, each fills its cell and covers no other."""
    photo = np.full((100 * times, 150 * times, 3), 255, np.uint8)
    photo[:, : 75 * times] = (255, 0, 0)
    cams = wsss.grad_cam(clip, photo, TAGS)
    for sheet in (cams.plot(), wsss.pseudo_mask(photo, cams.maps, TAGS, crf=False).plot()):
        pixels = np.asarray(sheet).astype(int)
        red = (pixels[..., 0] > 250) & (pixels[..., 1:] < 5).all(axis=-1)
        columns = np.flatnonzero(red[:180].any(axis=0))
        # The left half of a cell of 180 pixels behind a margin of 16.
        assert abs(columns[0] - 16) <= 1
        assert abs(columns[-1] - (16 + 90)) <= 2


def test_a_sheet_of_many_tags_is_not_wider_than_a_page() -> None:
    tags = tuple(f"tag {k}" for k in range(20))
    maps = np.zeros((20, 3, 4), np.float32)
    six, twenty = (
        ClassMaps(PHOTO, tags[:count], maps[:count], maps[:count]).plot() for count in (6, 20)
    )
    assert six.width > six.height
    assert twenty.width < 1000
    assert twenty.height > 20 * 160


MAPS = np.zeros((2, 3, 4), np.float32)


@pytest.mark.slow  # the fast tests check types, which is another error
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: wsss.grad_cam("demo", PHOTO, ["cat"]),
         r"clip is 'demo'; expected what wsss\.load_clip\('demo'\) returns"),
        (lambda: wsss.patch_text_cams(None, PHOTO, ["cat"]), "clip is None; expected what"),
        (lambda: wsss.load_refiner("r.safetensors", clip="demo"), "clip is 'demo'; expected"),
        (lambda: wsss.pseudo_mask(PHOTO, MAPS, 3), "tags: expected a list of texts, not 3"),
        (lambda: wsss.pseudo_mask(PHOTO, MAPS, [1, 2]), "expected a list of texts, found 1 in it"),
        (lambda: wsss.pseudo_mask(PHOTO, MAPS, crf="torch"), "crf is 'torch'; expected True, Fal"),
        (lambda: wsss.pseudo_mask(PHOTO, MAPS, par=None), "par: expected true or false"),
        (lambda: wsss.dense_crf(PHOTO, MAPS.tolist()), r"\[maps, height, width\], not list"),
        (lambda: wsss.propagate(None, MAPS), r"\[tokens, tokens\], not NoneType"),
        (lambda: wsss.pixel_adaptive_refinement(PHOTO, MAPS, dilations="12"),
         "dilations: expected a list of whole numbers, not '12'"),
        (lambda: wsss.load_clip(device=None), r"device: expected a text \(found None\)"),
        (lambda: wsss.grad_cam(wsss.load_clip(), PHOTO, ["cat"], prompts={"cat": 3}),
         "prompts is {'cat': 3}; expected words by class"),
        (lambda: wsss.Confusion(3).add(PHOTO, PHOTO), r"\[112, 120, 3\], expected labels as"),
        (lambda: wsss.Confusion(3).add(SCENE.mask, wsss.pseudo_mask(PHOTO, MAPS, crf=False)),
         r"the prediction is a Segmentation, .*; pass its \.labels$"),
        (lambda: wsss.Confusion(3).add("t.png", SCENE.mask),
         r"the truth is a str, .*; of a palette PNG pass PIL\.Image\.open\(path\)$"),
        (lambda: wsss.Confusion(3).add([[1], [1, 2]], SCENE.mask), "rows of different lengths"),
        (lambda: wsss.Confusion(3).merge(MAPS), "a Confusion to merge, not ndarray"),
        (lambda: wsss.read_image(torch.from_numpy(PHOTO)),
         r"not Tensor; pass photo\.detach\(\)\.cpu\(\)\.numpy\(\)$"),
        (lambda: wsss.read_image(PHOTO.tolist()), "not list; pass numpy.array.photo"),
        (lambda: wsss.read_image(b"png"), r"PIL\.Image\.open\(io\.BytesIO\(photo\)\)$"),
        (lambda: wsss.dense_crf(PHOTO, torch.from_numpy(MAPS)),
         r"not Tensor; pass probabilities\.detach\(\)\.cpu\(\)\.numpy\(\)$"),
        (lambda: wsss.grad_cam(PHOTO, wsss.load_clip(), ["cat"]),
         r"clip is an array uint8 \[112, 120, 3\]; expected what wsss\.load_clip\(\)"),
        (lambda: wsss.grad_cam(wsss.load_clip(), PHOTO, [None]), "list of texts, found None in it"),
    ],
)  # fmt: skip
def test_a_value_of_another_type_gets_one_clear_message(
    call: Callable[[], Any], message: str
) -> None:
    with pytest.raises((ValueError, TypeError), match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda clip: wsss.read_image("nowhere.png"), "nowhere.png: missing file"),
        (lambda clip: wsss.read_image(PHOTO / 255), r"array float64 .* expected RGB as uint8"),
        (lambda clip: wsss.read_image(PHOTO[:, :, 0]), "expected RGB as uint8"),
        (lambda clip: wsss.read_image(""), "the path is empty; name the file of a photo"),
        (lambda clip: wsss.read_image("."), "is a folder; name the file of a photo"),
        (lambda clip: wsss.read_image("https://a.org/b.jpg"), "is an address; download the photo"),
        (lambda clip: wsss.read_image(PHOTO * 1.0), r"photo\.round\(\)\.astype\(numpy\.uint8\)$"),
        (lambda clip: wsss.read_image(PHOTO.astype(int)), r"it is photo\.astype\(numpy\.uint8\)$"),
        (lambda clip: wsss.read_image(PHOTO.astype(np.uint16) * 257), r"of 16 bits .*photo / 257"),
        (lambda clip: wsss.read_image(PHOTO * 2.0 - 255), r"its values are .*, scale them$"),
        (lambda clip: wsss.read_image(PHOTO[None]), r"of a batch of one it is photo\[0\]$"),
        (lambda clip: wsss.read_image(PHOTO[..., :1]), r"Image\.fromarray\(photo\[\.\.\., 0\]\)$"),
        (lambda clip: wsss.grad_cam(clip, PHOTO, "cat"), r"; write \['cat'\]$"),
        (lambda clip: wsss.grad_cam(clip, PHOTO, ["cow"], classes=["cat", "owl"]),
         "'cow' is no class.*owl"),
        (lambda clip: wsss.grad_cam(clip, PHOTO, ["zebra"], classes=["cat", "owl"]),
         "'zebra' is no class; the classes are cat, owl$"),
        (lambda clip: wsss.pseudo_mask(PHOTO, MAPS, background=MAPS[0, :2]),
         r"^background: expected the size of the scores, \[3, 4\], not \[2, 4\]; give both on"),
        (lambda clip: wsss.dense_crf(PHOTO, MAPS[0]), r"of one map it is probabilities\[None\]$"),
        (lambda clip: wsss.dense_crf(PHOTO, MAPS[None]), r"of a batch .*probabilities\[0\]$"),
        (lambda clip: wsss.dense_crf(PHOTO, np.full((2, 3, 4), 7, np.uint8)),
         r"pass probabilities\.astype\(numpy\.float32\) / 255$"),
        (lambda clip: wsss.pseudo_mask(PHOTO, MAPS > 0), r"pass scores\.astype\(numpy\.float32\)$"),
        (lambda clip: wsss.load_clip("demo", "my.pt"), "has weights of its own; leave pretrained"),
        (lambda clip: wsss.Confusion(True), "True labels; expected 1 … 255"),
        (lambda clip: wsss.load_segmenter("."), "holds no segmenter/weights.safetensors"),
        (lambda clip: wsss.load_clip(device="mps"), "^device: found 'mps', expected auto"),
        (lambda clip: wsss.load_clip("x.json", "random"), "; model must name one, or a model of"),
        (lambda clip: wsss.grad_cam(clip, PHOTO, ["cat"], prompts={"dog": "puppy"}),
         "^prompts: 'dog' is no class"),
        (lambda clip: wsss.load_clip("ViT-Z"), "open_clip has no model 'ViT-Z'; did you mean ViT"),
        (lambda clip: wsss.grad_cam(clip, PHOTO, []), "there is no tag; name what is on the photo"),
        (lambda clip: wsss.grad_cam(clip, PHOTO, "cat"), "^tags: .* texts, not 'cat'"),
        (lambda clip: wsss.grad_cam(clip, PHOTO, ["cat"], "sky"),
         "^backgrounds: expected a list of texts, not 'sky'"),
        (lambda clip: wsss.patch_text_cams(clip, PHOTO, ["cat"], descriptions={"cat": "furry"}),
         "^descriptions of 'cat': expected a list of texts, not 'furry'"),
        (lambda clip: wsss.pseudo_mask(PHOTO, MAPS, "it"), "tags: expected .* texts, not 'it'"),
        (lambda clip: wsss.grad_cam(clip, PHOTO, ["cat", "Cat"]), "is the same as 'cat'"),
        (lambda clip: wsss.grad_cam(clip, PHOTO, ["cat"], ["cat"]),
         "^backgrounds: 'cat' is one of the classes"),
        (lambda clip: wsss.grad_cam(clip, PHOTO, ["cat"], box_threshold=2.0),
         r"box_threshold: .* less than or equal to 1 \(found 2\.0\)"),
        (lambda clip: wsss.grad_cam(clip, PHOTO, ["cat"], affinity={"kind": "dot"}),
         "kind: expected one of 'attention', .* or 'joined' .found 'dot'."),
        (lambda clip: wsss.grad_cam(clip, PHOTO, ["cat"], affinity={"kind": "dino"}),
         r"no DINOv2 is loaded here; give wsss\.propagate"),
        (lambda clip: wsss.grad_cam(clip, PHOTO, ["cat"], affinity={"sharpnes": 1.0}),
         "there is no setting 'sharpnes'; did you mean 'sharpness'"),
        (lambda clip: wsss.grad_cam(clip, PHOTO, ["cow"], classes=["cat"]), "'cow' is no class"),
        (lambda clip: wsss.grad_cam(clip, PHOTO, ["cat", "Cat"], classes=["cat", "dog"]),
         "tags: cat, Cat: a class is named twice"),
        (lambda clip: wsss.grad_cam(clip, np.zeros((3000, 4000, 3), np.uint8), ["cat"]),
         "too large for the encoder.* set long_side"),
        (lambda clip: wsss.patch_text_cams(clip, PHOTO, ["car"], classes=["cat", "dog"]),
         "'car' is no class; did you mean 'cat'?"),
        (lambda clip: wsss.patch_text_cams(clip, PHOTO, ["cat"], descriptions={"dog": ["a"]}),
         "descriptions: there is none of cat"),
        (lambda clip: wsss.propagate(np.eye(9), MAPS), "does not fit maps on a grid of 3 x 4"),
        (lambda clip: wsss.propagate(np.ones((12, 13)), MAPS), "attention .12, 13. does not fit"),
        (lambda clip: wsss.propagate(np.eye(12), MAPS - 1), "values in 0 … 1, not -1.0 … -1.0"),
        (lambda clip: wsss.dense_crf(PHOTO, MAPS * np.nan), "expected finite values, found NaN"),
        (lambda clip: wsss.dense_crf(PHOTO, MAPS[0]),
         r"expected a numpy float array .* not float32"),
        (lambda clip: wsss.dense_crf(PHOTO, MAPS, iterations=0), "^iterations: .*found 0"),
        (lambda clip: wsss.pseudo_mask(PHOTO, MAPS, ["cat"]), "2 score maps for 1 tags"),
        (lambda clip: wsss.load_clip("ViT-B-16", "opnai"), "no weights 'opnai' .* mean openai"),
        (lambda clip: wsss.pseudo_mask(PHOTO, MAPS, crf={"blur": 1.0}), "no setting 'blur'"),
        (lambda clip: wsss.pixel_adaptive_refinement(PHOTO, MAPS, dilations=[0]),
         "dilations: expected whole numbers in 1 … 1000, found 0"),
        (lambda clip: wsss.pixel_adaptive_refinement(PHOTO, MAPS, iterations=-1),
         "iterations: expected whole numbers in 0 … 1000, found -1"),
        (lambda clip: wsss.dense_crf(PHOTO, MAPS[:0]), "that is not empty, not float32"),
        (lambda clip: wsss.pseudo_mask(PHOTO, MAPS[:, :0]), "that is not empty, not float32"),
        (lambda clip: wsss.pseudo_mask(PHOTO, np.repeat(MAPS, 128, 0)), "hold at most 254"),
        (lambda clip: wsss.pseudo_mask(PHOTO, MAPS, background=MAPS), r"\[height, width\], not"),
        (lambda clip: wsss.pseudo_mask(PHOTO, MAPS, background_power=-1.0),
         "^background_power: .*greater than 0"),
        (lambda clip: wsss.propagate(np.full((12, 12), np.inf), MAPS), "attention: .*infinity"),
        (lambda clip: wsss.propagate(-np.eye(12), MAPS), "attention: expected values from 0 on"),
        (lambda clip: wsss.propagate(np.eye(12), MAPS, iterations=0), "^iterations: expected"),
        (lambda clip: clip.attention(PHOTO, last_blocks=0), "^last_blocks: expected a number gre"),
        (lambda clip: clip.attention(PHOTO, last_blocks=13), "^last_blocks is 13, but the encoder"),
        (lambda clip: wsss.grad_cam(clip, PHOTO, {"cat", "dog"}), "expected a list of texts"),
        (lambda clip: wsss.grad_cam(clip, PHOTO, ["cat"], classes=[]), "no class: .*classes is em"),
        (lambda clip: wsss.read_image(PHOTO.transpose(2, 0, 1)), r"photo\.transpose\(1, 2, 0\)"),
        (lambda clip: wsss.read_image(PHOTO[..., [0, 1, 2, 0]]), r"Image\.fromarray\(photo\)"),
        (lambda clip: wsss.read_image(Image.new("RGB", (0, 4))), r"expected RGB .*uint8"),
        (lambda clip: wsss.load_clip(template="a {}."), "^template: expected a list of texts"),
        (lambda clip: wsss.load_clip(long_side=0), "^long_side: expected a number greater than 0"),
        (lambda clip: wsss.Confusion(0), "0 labels; expected 1 … 255"),
        (lambda clip: wsss.Confusion(3, boundary_ratio=2.0), "boundary_ratio is 2.0"),
        (lambda clip: wsss.load_clip(precision="fp16"), "precision: .*did you mean 'bf16'"),
        (lambda clip: wsss.load_segmenter("nowhere.safetensors"), "nowhere.safetensors: no such"),
        (lambda clip: wsss.load_refiner("nowhere.safetensors"), "nowhere.safetensors: no such"),
    ],
)  # fmt: skip
def test_bad_input_gets_one_clear_message(
    clip: Clip, call: Callable[[Clip], Any], message: str
) -> None:
    with pytest.raises((ValueError, TypeError, WsssError), match=message) as caught:
        call(clip)
    assert "\n" not in str(caught.value)


@pytest.mark.slow  # the fast tests check types
@pytest.mark.parametrize(("affinity", "attribute"), [(True, "propagated"), (False, "maps")])
def test_what_a_cam_function_returns_is_no_array(
    clip: Clip, affinity: bool, attribute: str
) -> None:
    cams: Any = wsss.grad_cam(clip, PHOTO, list(TAGS), affinity=affinity)
    with pytest.raises(ValueError, match=rf"not ClassMaps; pass its \.{attribute}$"):
        wsss.pseudo_mask(PHOTO, cams)


@pytest.mark.slow  # the fast tests check types, and numpy's numbers are no int
def test_arrays_and_tuples_are_lists(clip: Clip) -> None:
    expected = wsss.grad_cam(clip, PHOTO, list(TAGS), ["grass"], affinity=False)
    actual = wsss.grad_cam(
        clip, np.ma.masked_array(PHOTO), np.array(TAGS), ("grass",), affinity=False
    )
    assert actual.tags == TAGS
    assert type(actual.tags[0]) is str
    assert np.array_equal(actual.maps, expected.maps)
    assert wsss.pseudo_mask(PHOTO, MAPS, dict.fromkeys(TAGS).keys(), crf=False).names[1:] == TAGS
    refined = [
        wsss.pixel_adaptive_refinement(PHOTO, MAPS, iterations=count, dilations=dilations)
        for count, dilations in ((1, [1, 2]), (np.int64(1), np.array([1, 2])))
    ]
    assert np.array_equal(*refined)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scene on disk with its manifest, and a checkpoint of each kind."""
    folder = tmp_path_factory.mktemp("run")
    write_scene(folder)
    write_refiner(folder / "refiner.safetensors")
    write_segmenter(folder / "segmenter.safetensors")
    return folder


def _stage_prediction(
    folder: Path, name: str, run: Callable[..., None], *cache: Path, **sections: Any
) -> dict[str, np.ndarray]:
    """The label maps that a stage predicts with a checkpoint."""
    config = clip_es_config({"compute": {"device": "cpu", "workers": 1}, **sections})
    kind = "segmenter" if name == "predict" else "refiner"
    out, checkpoint = folder / f"{kind}.h5", folder / f"{kind}.safetensors"
    run(folder, "train", (1, 1), checkpoint, out, *cache, **STAGES[name].arguments(config))
    with wsss.Shard(out, kind="predictions") as shard:
        return dict(shard.read("scene").arrays)


@pytest.mark.slow
def test_a_refiner_needs_its_checkpoint_alone(folder: Path, clip: Clip) -> None:
    refiner = wsss.load_refiner(folder / "refiner.safetensors", device="cpu")
    assert isinstance(refiner.refiner, wsss.Refiner)
    _check_predictor(refiner, _stage_prediction(
        folder, "refine_predict", predict_of_refiner, folder / "cache",
        refine={"method": "weclip"}, infer={"crf": True},
    ))  # fmt: skip
    shared = wsss.load_refiner(folder / "refiner.safetensors", clip=clip, device="cpu")
    assert np.array_equal(shared.probabilities(PHOTO), refiner.probabilities(PHOTO))
    scores = refiner.scores(PHOTO, TAGS)
    assert np.allclose(scores.maps.sum(0) + scores.background, 1, atol=1e-5)
    mask, _ = wsss.pseudo_mask(PHOTO, scores.maps, TAGS, background=scores.background)
    assert mask.shape == PHOTO.shape[:2]
    assert np.array_equal(refiner.scores(PHOTO, ["Bottle", "HOUSE"]).maps, scores.maps)
    with pytest.raises(ValueError, match="'bottel' is no class of this refiner; did you mean"):
        refiner.scores(PHOTO, ["bottel"])
    for tags, problem in (((), "there is no tag to score"), (TAGS[:1] * 2, "a tag is named twice")):
        with pytest.raises(ValueError, match=problem):
            refiner.scores(PHOTO, np.array(tags))
    with pytest.raises(WsssError, match=r"but a segmenter's; wsss\.load_segmenter reads it"):
        wsss.load_refiner(folder / "segmenter.safetensors")


@pytest.mark.slow
def test_a_segmenter_needs_its_checkpoint_alone(folder: Path) -> None:
    segmenter = wsss.load_segmenter(folder / "segmenter.safetensors", device="cpu")
    retrain = {"model": "segformer-b0", "crop": 96}
    _check_predictor(segmenter, _stage_prediction(
        folder, "predict", predict.run, retrain=retrain, predict={"crf": True} | PREDICT
    ))  # fmt: skip
    with pytest.raises(WsssError, match="holds no segmenter but a refiner"):
        wsss.load_segmenter(folder / "refiner.safetensors")


@pytest.mark.slow
def test_a_folder_stands_for_its_checkpoint(folder: Path, tmp_path: Path) -> None:
    """As for ``wsss predict --weights``."""
    run = tmp_path / "results/photos"
    for kind, file in (
        ("refiner", "refine/checkpoint.safetensors"),
        ("segmenter", "segmenter/weights.safetensors"),
    ):
        (run / file).parent.mkdir(parents=True)
        (run / file).symlink_to(folder / f"{kind}.safetensors")
    device = torch.device("cpu")
    for place in (tmp_path, run, run / "segmenter"):
        assert wsss.load_segmenter(place, device=device).names == LABELS
    assert wsss.load_refiner(run, device=device).names == LABELS
    (tmp_path / "results/other/segmenter").mkdir(parents=True)
    (tmp_path / "results/other/segmenter/weights.safetensors").touch()
    with pytest.raises(WsssError, match=r"holds 2 checkpoints; name one of them: .*other/segm"):
        wsss.load_segmenter(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["refiner", "segmenter"])
def test_a_predictor_computes_in_its_precision(folder: Path, kind: str) -> None:
    """And leaves this process's as it was."""
    load = {"refiner": wsss.load_refiner, "segmenter": wsss.load_segmenter}[kind]
    exact, auto, rounded = (
        load(folder / f"{kind}.safetensors", device="cpu", precision=precision)
        for precision in ("float32", "auto", "bf16")
    )
    expected, actual = exact.probabilities(PHOTO), rounded.probabilities(PHOTO)
    assert np.array_equal(auto.probabilities(PHOTO), expected)
    assert 0 < np.abs(actual - expected).max() < 0.05
    assert in_force() == Numerics()


@pytest.mark.slow
def test_a_large_photo_is_labelled_in_stripes(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    segmenter = wsss.load_segmenter(folder / "segmenter.safetensors", device="cpu")
    crf = {"long_side": 80}
    expected = (
        segmenter.probabilities(PHOTO),
        segmenter.predict(PHOTO),
        segmenter.predict(PHOTO, crf=crf),
    )
    for off in (None, {"enabled": False}, np.False_):
        assert np.array_equal(segmenter.predict(PHOTO, crf=off).labels, expected[1].labels)
    monkeypatch.setattr("wsss.api.models._LARGEST_BYTES", 1000)
    monkeypatch.setattr("wsss.retrain.stripes._STRIPE_BYTES", 10_000)
    monkeypatch.delattr("wsss.retrain.segmenter.Segmenter.probabilities")
    actual = (
        segmenter.probabilities(PHOTO),
        segmenter.predict(PHOTO),
        segmenter.predict(PHOTO, crf=crf),
    )
    np.testing.assert_allclose(actual[0], expected[0], atol=1e-4)
    for ours, theirs in zip(actual[1:], expected[1:], strict=True):
        assert (ours.labels == theirs.labels).mean() > 0.999
    np.testing.assert_allclose(actual[1].confidence, expected[1].confidence, atol=1e-4)
    rounded = wsss.load_segmenter(folder / "segmenter.safetensors", device="cpu", precision="bf16")
    stripes = rounded._in_stripes(PHOTO, True)
    assert stripes
    next(stripes)  # read in part, and perhaps closed by another thread
    assert in_force() == Numerics()


def _check_predictor(predictor: Predictor, expected: dict[str, np.ndarray]) -> None:
    assert predictor.names == LABELS
    assert repr(predictor).startswith(f"<{type(predictor).__name__} of {len(LABELS)} labels: back")
    assert len(repr(predictor)) < 100
    assert np.array_equal(predictor.palette, voc_palette())
    for name in ("single", "multi"):
        multi = name == "multi"
        for suffix, crf in (("", False), ("_crf", True)):
            result = predictor.predict(PHOTO, multi_scale=multi, crf=crf)
            assert np.array_equal(result.labels, expected[name + suffix])
        probs = predictor.probabilities(PHOTO, multi_scale=multi)
        assert probs.shape == (len(LABELS), *PHOTO.shape[:2])
        assert np.allclose(probs.sum(0), 1, atol=1e-5)
    assert max(predictor.predict(PHOTO).overlay().size) == 360
