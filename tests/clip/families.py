"""Small models of every family of image encoders, built by open_clip from its own configs.

Depth, width and sides shrink; classes, activations, norms, poolings and positions are those of the
named model.
"""

import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch

from tests.clip.test_tokenizer import write_tokenizer
from wsss._compat import import_open_clip
from wsss._compat.timm_towers import import_timm_towers
from wsss.clip.load import LoadedClip, load_clip

DEPTH: Final = 6
_SIDE: Final = 4  # patches
_SMALL: Final[Mapping[str, Any]] = {"embed_dim": 48, "depth": DEPTH, "num_heads": 3}
_WORDS = ("[PAD]", "[UNK]", "[SEP]", "a", "clean", "origami", "cat", "dog", "bird", "sky")

PLAIN: Final = ("ViT-L-14", "ViT-L-14-336-quickgelu", "ViT-B-16-quickgelu", "ViT-L-14-CLIPA")
"""OpenAI's with GELU and QuickGELU (and MetaCLIP's), and one without a class token's pooling."""
EVA: Final = ("EVA02-B-16", "EVA02-L-14", "EVA02-L-14-336", "EVA01-g-14")
SIGLIP: Final = ("ViT-B-16-SigLIP", "ViT-SO400M-14-SigLIP2")
FAMILIES: Final = (*PLAIN, *EVA, *SIGLIP)


def small_config(name: str) -> dict[str, Any]:
    """The config of an open_clip model, smaller; this process knows its tower of timm."""
    config: dict[str, Any] = json.loads(json.dumps(import_open_clip().get_model_config(name)))
    vision, text = config["vision_cfg"], config["text_cfg"]
    if "timm_model_name" in vision:
        vision["timm_model_name"] = _small_tower(vision["timm_model_name"])
        vision["image_size"] = _SIDE * _patch(name)
    else:
        side = {"image_size": _SIDE * vision["patch_size"], "width": 48, "head_width": 16}
        vision |= side | {"layers": DEPTH}
    config["embed_dim"] = 48 if "timm_proj" in vision and vision["timm_proj"] == "none" else 24
    text |= {"width": 32, "heads": 2, "layers": 1}
    if "hf_tokenizer_name" in text:
        text |= {"hf_tokenizer_name": "words", "vocab_size": len(_WORDS), "tokenizer_kwargs": {}}
    return config


def write_small(folder: Path, name: str) -> str:
    """The same as a file next to a tokenizer, where the model needs one."""
    config = small_config(name)
    folder.mkdir(exist_ok=True, parents=True)
    if "hf_tokenizer_name" in config["text_cfg"]:
        write_tokenizer(folder / "words", _WORDS)
    preprocess = {}
    if name in SIGLIP:
        preprocess = {"preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3}}
    path = folder / f"{name}.json"
    path.write_text(json.dumps({"model_cfg": config, **preprocess}), encoding="utf-8")
    return str(path)


def small_clip(folder: Path, name: str) -> LoadedClip:
    """The small model with random weights that give features a large variance."""
    clip = load_clip(write_small(folder, name), "random")
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in clip.model.get_submodule("visual").parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            # Matrices get a large variance; norms, biases and scales move from 1 and 0.
            if parameter.ndim > 1:
                parameter.copy_(0.25 * noise)
            else:
                parameter.add_(0.1 * noise)
    return clip


def _patch(name: str) -> int:
    return 16 if "-16" in name else 14


def _small_tower(name: str) -> str:
    """The name of a smaller tower, made by timm's own function of the large one."""
    import_timm_towers()
    registry = importlib.import_module("timm.models")
    small = f"small_{name}"
    if registry.is_model(small):
        return small
    make = registry.model_entrypoint(name)
    patch = 16 if "patch16" in name else 14

    def tower(pretrained: bool = False, **options: Any) -> Any:
        sizes = _SMALL | {"img_size": _SIDE * patch}
        return make(pretrained, **(sizes | options))

    tower.__name__, tower.__module__ = small, make.__module__
    registry.register_model(tower)
    return small
