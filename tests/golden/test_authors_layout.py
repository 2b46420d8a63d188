"""Names and shapes of the released files, written down from the specifications.

No released file is at hand. What is written here is held to three things: the tensors of the
published implementations in the golden files (small, all names), the parameter counts that the
papers give (full size), and what the import asks for (both).
"""

from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.golden.published_weakclip import checkpoint
from wsss._compat import import_open_clip
from wsss.clip.encoder import ClipEncoder
from wsss.clip.load import LoadedClip, load_clip
from wsss.config.load import from_mapping
from wsss.config.paths import expand_path
from wsss.data.datasets.classes import class_list
from wsss.data.datasets.coco import CATEGORY_IDS, UNUSED_CATEGORIES
from wsss.data.datasets.words import COCO_NAMES
from wsss.refine.blocks.head import Head
from wsss.refine.excel import released as excel_release
from wsss.refine.excel.options import ExcelOptions
from wsss.refine.released.matching import COUNTER, Part, assemble
from wsss.refine.weakclip import released as weakclip_release
from wsss.refine.weakclip.network import WeakClipNetwork
from wsss.refine.weakclip.options import WeakClipOptions

Layout = dict[str, tuple[int, ...]]
EXTRA = list(UNUSED_CATEGORIES.values())


def linear(name: str, out: int, into: int, *, bias: bool = True) -> Layout:
    return {f"{name}.weight": (out, into)} | ({f"{name}.bias": (out,)} if bias else {})


def norm(name: str, width: int) -> Layout:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def batch_norm(name: str, width: int) -> Layout:
    statistics = {f"{name}.running_{what}": (width,) for what in ("mean", "var")}
    return norm(name, width) | statistics | {f"{name}.{COUNTER}": ()}


def convolution(name: str, *shape: int, bias: int = 0) -> Layout:
    return {f"{name}.weight": shape} | ({f"{name}.bias": (bias,)} if bias else {})


def clip_blocks(name: str, depth: int, width: int) -> Layout:
    layout: Layout = {}
    for index in range(depth):
        block = f"{name}.transformer.resblocks.{index}"
        layout |= {f"{block}.attn.in_proj_weight": (3 * width, width)}
        layout |= {f"{block}.attn.in_proj_bias": (3 * width,)}
        layout |= linear(f"{block}.attn.out_proj", width, width)
        layout |= linear(f"{block}.mlp.c_fc", 4 * width, width)
        layout |= linear(f"{block}.mlp.c_proj", width, 4 * width)
        layout |= norm(f"{block}.ln_1", width) | norm(f"{block}.ln_2", width)
    return layout


def weakclip_layout(
    *, image: int, text: int, joint: int, co: int, channels: int, labels: int, words: int
) -> Layout:
    """Eq. 3-16 of docs/methods/weakclip.md; 12 blocks, patch 16, crops of 512, 8 prompt vectors."""
    layout: Layout = {"contexts": (1, 8, text), "gamma": (joint,), "beta": (joint,)}
    layout |= {"backbone.class_embedding": (image,), "backbone.proj": (image, joint)}
    layout |= {"backbone.positional_embedding": (1 + 32 * 32, image)}
    layout |= convolution("backbone.conv1", image, 3, 16, 16) | clip_blocks("backbone", 12, image)
    layout |= norm("backbone.ln_pre", image) | norm("backbone.ln_post", image)
    for doubling in ("fpn1.1", "fpn1.4", "fpn2.1"):
        layout |= convolution(f"backbone.{doubling}", image, image, 2, 2, bias=image)
    for module in ("fpn1.0", "fpn2.0", "fpn3", "fpn4.0"):
        layout |= norm(f"backbone.{module}", image)
    layout |= batch_norm("backbone.fpn1.2", image)
    layout |= {"text_encoder.positional_embedding": (8 + 5, text)}
    layout |= {"text_encoder.token_embedding.weight": (words, text)}
    layout |= {"text_encoder.text_projection": (text, joint)} | norm("text_encoder.ln_final", text)
    layout |= clip_blocks("text_encoder", 12, text)
    inside = "context_decoder"
    layout |= norm(f"{inside}.memory_proj.0", joint) | linear(f"{inside}.memory_proj.1", co, joint)
    layout |= norm(f"{inside}.memory_proj.2", co)
    layout |= norm(f"{inside}.text_proj.0", joint) | linear(f"{inside}.text_proj.1", co, joint)
    for stack in ("decoder", "anti_decoder"):
        for layer in (f"{inside}.{stack}.{index}" for index in range(3)):
            for attention in ("self_attn", "cross_attn"):
                for what in "qkv":
                    layout |= linear(f"{layer}.{attention}.{what}_proj", co, co, bias=False)
                layout |= linear(f"{layer}.{attention}.proj", co, co)
            for index in (1, 2, 3):
                layout |= norm(f"{layer}.norm{index}", co)
            layout |= linear(f"{layer}.mlp.0", 4 * co, co) | linear(f"{layer}.mlp.3", co, 4 * co)
    for out in ("out_proj", "anti_out_proj"):
        layout |= norm(f"{inside}.{out}.0", co) | linear(f"{inside}.{out}.1", joint, co)
    for level in range(4):
        layout |= convolution(
            f"neck.lateral_convs.{level}.conv", channels, image + labels, 1, 1, bias=channels
        )
        layout |= convolution(
            f"neck.fpn_convs.{level}.conv", channels, channels, 3, 3, bias=channels
        )
        for step in range(0, 2 * max(1, level), 2):  # the others double and have no weights
            module = f"decode_head.scale_heads.{level}.{step}"
            layout |= convolution(f"{module}.conv", channels, channels, 3, 3)
            layout |= batch_norm(f"{module}.bn", channels)
    return layout | convolution("decode_head.conv_seg", labels, channels, 1, 1, bias=labels)


def excel_layout(*, image: int, width: int, labels: int) -> Layout:
    """What the released ExCEL trains: 12 maps, three blocks (eq. 14 of docs/methods/excel.md)."""
    layout: Layout = {}
    for index in range(12):
        module = f"decoder_fts_fuse.linears_modulelist.{index}"
        layout |= linear(f"{module}.proj", width, image) | linear(f"{module}.proj_2", width, width)
    fuse = "decoder_fts_fuse.linear_fuse"
    layout |= convolution(fuse, width, 12 * width, 1, 1, bias=width)
    layout |= clip_blocks("decoder", 3, width)
    return layout | convolution("decoder.linear_pred", labels, width, 1, 1, bias=labels)


def shapes(tensors: Mapping[str, Tensor]) -> Layout:
    return {name: tuple(value.shape) for name, value in tensors.items()}


def sources_of(parts: Mapping[str, Part]) -> Layout:
    """What an import asks a file for."""
    return {source: part.shape for part in parts.values() for source in part.sources}


def parameters(layout: Layout) -> int:
    buffers = ("running_mean", "running_var", COUNTER)
    return sum(prod(shape) for name, shape in layout.items() if not name.endswith(buffers))


def test_weakclip_layout_is_that_of_the_published_implementation(golden_dir: Path) -> None:
    small = {"image": 128, "text": 64, "joint": 64, "co": 64, "channels": 32}
    expected = weakclip_layout(**small, labels=21, words=512)
    actual = shapes(checkpoint(golden_dir))
    assert actual == {n: s for n, s in expected.items() if not n.endswith(COUNTER)}


def test_excel_layout_is_that_of_the_published_implementation(golden_dir: Path) -> None:
    actual = shapes(load_file(golden_dir / "excel_heads.safetensors"))
    assert actual == excel_layout(image=128, width=64, labels=21)


@pytest.mark.parametrize(
    ("labels", "new", "total"), [(21, 21_240_853, 171_464_725), (91, 21_330_523, 171_554_395)]
)
def test_the_import_asks_for_the_release_of_weakclip(labels: int, new: int, total: int) -> None:
    """On the meta device: ViT-B/16 of OpenAI; counts of docs/methods/weakclip.md."""
    full = {"image": 768, "text": 512, "joint": 512, "co": 256, "channels": 256}
    release = weakclip_layout(**full, labels=labels, words=49408)
    assert parameters(release) == total
    names = ["background", *class_list("voc").names]
    order = None
    if labels == 91:
        names = ["background", *COCO_NAMES, *EXTRA]
        order = weakclip_release.coco_order(EXTRA)
    clip = vit_b_16()
    tokens = clip.tokenize(names)
    with torch.device("meta"):
        encoder = ClipEncoder(clip.model.get_submodule("visual"), device=torch.device("meta"))
        settings = published("weakclip", width=256, channels=256)
        network = WeakClipNetwork(clip, encoder, names, settings, 512, tokens)
    assert network.parameter_counts() == (new, total)
    groups = network.groups()
    assert sum(p.numel() for group in groups for p in group.parameters) == total
    assert [group.relative for group in groups] == [1.0, 0.0, 0.0]
    parts = weakclip_release.parts(network.trained.state_dict(), 768, order)
    assert sources_of(parts) == release


@pytest.mark.parametrize(("labels", "total"), [(21, 6_313_237), (81, 6_328_657)])
def test_the_import_asks_for_the_release_of_excel(labels: int, total: int) -> None:
    """At the sizes of the release (eq. 14 of docs/methods/excel.md)."""
    release = excel_layout(image=768, width=256, labels=labels)
    assert parameters(release) == total
    with torch.device("meta"):
        head = Head(12, 768, labels, published("excel", width=256))
    assert sources_of(excel_release.parts(head.state_dict())) == release


def vit_b_16() -> LoadedClip:
    """OpenAI's ViT-B/16 without values."""
    open_clip = import_open_clip()
    with torch.device("meta"):
        model = open_clip.model.CLIP(**open_clip.get_model_config("ViT-B-16-quickgelu"))
    tokenizer = open_clip.get_tokenizer("ViT-B-16-quickgelu")
    return LoadedClip(model, lambda texts: tokenizer(list(texts)), "", (0.0,) * 3, (1.0,) * 3, {})


def published(method: str, **changes: object) -> Any:
    mapping = {"variant": "published", "refine": {"method": method, method: changes}}
    options: WeakClipOptions | ExcelOptions = getattr(
        from_mapping(mapping, partial=True).refine, method
    )
    return options


@pytest.mark.parametrize("extra", [[], EXTRA[:9], [*EXTRA[:9], "hat"], [*EXTRA, "tree"]])
def test_other_extra_labels_have_no_order(extra: list[str]) -> None:
    assert weakclip_release.coco_order(extra) is None


def test_labels_of_coco_keep_their_meaning() -> None:
    """A network in the order of category ids gives the same logits as that in ours."""
    names = dict(zip(CATEGORY_IDS, COCO_NAMES, strict=True)) | UNUSED_CATEGORIES
    theirs = ["background", *(names[index] for index in range(1, 91))]
    ours = ["background", *COCO_NAMES, *reversed(EXTRA)]
    order = weakclip_release.coco_order(ours[81:])
    assert [theirs[label] for label in order] == ours
    clip = from_mapping({}).clip
    loaded = load_clip(str(expand_path(clip.model)), str(expand_path(clip.pretrained)))
    settings = published("weakclip", width=16, channels=16)

    def network(texts: list[str]) -> WeakClipNetwork:
        encoder = ClipEncoder(loaded.model.get_submodule("visual"))
        built = WeakClipNetwork(loaded, encoder, texts, settings, 64)
        built.train(False)
        return built

    first, second = network(theirs), network(ours)
    released = {
        weakclip_release.published_name(name): value[None] if name.endswith("contexts") else value
        for name, value in first.trained.state_dict().items()
    }
    state = second.trained.state_dict()
    assembled, rest = assemble(
        released, weakclip_release.parts(state, second._encoder.width, order)
    )
    assert not assembled.problems
    assert not rest
    second.trained.load_state_dict(assembled.tensors)
    pixels = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        a, b = (net.head(net.encode(pixels), net.texts())[1] for net in (first, second))
    torch.testing.assert_close(b, a[:, order], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(b, a, rtol=1e-2, atol=1e-2)
