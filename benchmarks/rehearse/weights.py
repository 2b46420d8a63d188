"""Random weights in files of the layouts that presets read: CLIP's, segmenters', the authors'."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from benchmarks.rehearse.reductions import initial_weights, is_tag, model_file, tag_weights
from tests.clip.test_tokenizer import write_tokenizer
from tests.refine.released.authors_files import excel_file, save, weakclip_file
from tests.retrain.weights.mxnet_file import mxnet_names, written
from wsss._compat import import_open_clip
from wsss._compat.timm_towers import import_timm_towers
from wsss.artifacts.stage import STAGES
from wsss.cli.weights_check import NO_FILES
from wsss.clip.input import EncoderInput
from wsss.config.base import overlay
from wsss.config.load import from_mapping
from wsss.config.model import Config
from wsss.config.retrain import RetrainConfig
from wsss.data.datasets.registry import read_dataset
from wsss.dino.load import load_dino
from wsss.refine.load import build_refiner
from wsss.retrain.architecture import build_model, model_config
from wsss.retrain.weights.pretrained import PRETRAINED

_WORDS = ("[PAD]", "[UNK]", "[SEP]", "a", "photo", "of")
_TIMM = {"deit-s": "deit_small_patch16_224"}


def write_clip(config: Config) -> None:
    """The files that stand for names: of `clip.pretrained`, and of a tokenizer of the hub.

    Args:
        config: not reduced.
    """
    model, tag = config.clip.model, config.clip.pretrained
    path = Path(tag_weights(model, tag))
    if is_tag(tag) and not path.exists():
        torch.manual_seed(0)
        import_timm_towers()
        _save(dict(import_open_clip().create_model(model, pretrained=None).state_dict()), path)
    file = Path(model_file(model))
    if file.suffix == ".json" and is_tag(tag) and not file.exists():
        content = json.loads(json.dumps(import_open_clip().get_model_config(model)))
        content["text_cfg"] |= {"hf_tokenizer_name": "words", "tokenizer_kwargs": {}}
        write_tokenizer(file.parent / "words", _WORDS)
        file.write_text(json.dumps(content), encoding="utf-8")


def write_dino(config: Config) -> None:
    """The file that stands for `dino.pretrained`, if the run reads one and that is a name.

    Args:
        config: not reduced.
    """
    model, tag = config.dino.model, config.dino.pretrained
    path = Path(tag_weights(model, tag))
    if "dino" in config.encoders_besides_clip and is_tag(tag) and not path.exists():
        _save(dict(load_dino(model, "random")[0].state_dict()), path)


def write_backbone(config: Config) -> None:
    """The file that stands for `retrain.init`, in the naming of those who publish it."""
    retrain = config.retrain
    named = retrain.init in PRETRAINED
    path = Path(initial_weights(retrain.init) if named else retrain.init)
    if not retrain.enabled or retrain.init in NO_FILES or path.exists():
        return
    torch.manual_seed(0)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".params":
        state = _backbone(retrain)
        arrays = {theirs: state[ours].numpy() for ours, theirs in mxnet_names().items()}
        path.write_bytes(written(arrays, form=2))
    elif retrain.init == "resnet101":
        import torchvision

        # Its blocks start as identities; else activations grow with the depth until they overflow.
        torch.save(torchvision.models.resnet101(zero_init_residual=True).state_dict(), path)
    elif retrain.init in _TIMM:
        import timm

        torch.save({"model": timm.create_model(_TIMM[retrain.init]).state_dict()}, path)
    else:
        torch.save(_backbone(retrain), path)


def write_checkpoint(config: Config) -> None:
    """The file that `refine.checkpoint` names, as the method's authors would have released it.

    Args:
        config: reduced; its images and CLIP's weights are there.
    """
    refine = config.refine
    if refine.checkpoint is None or Path(refine.checkpoint).exists():
        return
    trained = from_mapping(
        overlay(config.model_dump(mode="json"), {"refine": {"checkpoint": None}})
    )
    inputs = EncoderInput(config.clip, device="cpu")
    values = STAGES["refine_train"].select(trained)
    sections = {name: values[name] for name in ("clip", "cams", "refine", "prompts")}
    classes = read_dataset(config.data, config.variant).classes
    refiner = build_refiner(inputs, classes, **sections)
    state = refiner.trained.state_dict()
    released = (
        weakclip_file(state) if refine.method == "weakclip" else excel_file(state, inputs.clip)
    )
    path = Path(refine.checkpoint)
    path.parent.mkdir(parents=True, exist_ok=True)
    save(released, path)


def _backbone(retrain: RetrainConfig) -> Mapping[str, Tensor]:
    network: Any = build_model(model_config(retrain.model, labels=2, crop=retrain.crop))
    network.init_weights()
    return dict(network.backbone.state_dict())


def _save(tensors: dict[str, Tensor], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
