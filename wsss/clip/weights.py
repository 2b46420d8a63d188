"""Weight files: state dicts that are read without running what a pickle may carry; digests."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from wsss._compat import import_open_clip
from wsss._compat.torch_archives import packed, refusal
from wsss.clip.errors import ClipLoadError
from wsss.clip.torchscript import is_torchscript, read_torchscript
from wsss.data.counted import first_names
from wsss.errors import raise_unless_about


def read_weights(file: Path) -> dict[str, Tensor]:
    """Read a state dict; a pickle is read with ``weights_only=True`` alone.

    Of a TorchScript archive (OpenAI's files) the tensors are read, and no code.

    Raises:
        ClipLoadError: the file is missing, damaged, or holds other objects.
    """
    if file.exists() and not file.is_file():
        raise ClipLoadError(f"{file}: is no file; expected a weight file")
    try:
        if file.suffix != ".safetensors" and is_torchscript(file):
            return read_torchscript(file)
        if file.suffix != ".safetensors" and (problem := packed(file)):
            raise ClipLoadError(
                f"{file}: refused, {problem}; pass a file that torch.save wrote, or .safetensors"
            )
        if file.suffix == ".safetensors":
            return load_file(file)
        loaded = torch.load(file, map_location="cpu", weights_only=True)
    except ClipLoadError:
        raise
    except FileNotFoundError as error:
        raise_unless_about(file, error)
        raise ClipLoadError(f"{file}: no such weight file") from None
    except (SafetensorError, OSError) as error:
        raise_unless_about(file, error)
        raise ClipLoadError(f"{file}: is damaged or no safetensors file ({error})") from None
    except Exception as error:
        if not isinstance(error, MemoryError):  # the file may ask for any amount
            raise_unless_about(file, error)
        raise ClipLoadError(
            f"{file}: refused, {refusal(error)}; pass a file with tensors only, best as "
            ".safetensors"
        ) from None
    if isinstance(loaded, dict) and isinstance(loaded.get("state_dict"), dict):
        loaded = loaded["state_dict"]
    if not isinstance(loaded, dict) or not all(
        isinstance(value, Tensor) for value in loaded.values()
    ):
        raise ClipLoadError(
            f"{file}: holds {type(loaded).__name__}, expected a state dict of tensors"
        )
    return {str(name).removeprefix("module."): value for name, value in loaded.items()}


def read_shapes(file: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file without their values, from its header.

    Raises:
        ClipLoadError: the file cannot be read, or its header is damaged.
    """
    try:
        with safe_open(file, framework="pt") as stored:
            shapes = {name: stored.get_slice(name).get_shape() for name in stored.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise_unless_about(file, error)
        raise ClipLoadError(f"{file}: is damaged or no safetensors file ({error})") from None
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


def fitting(built: nn.Module, weights: Mapping[str, Tensor], where: str) -> Mapping[str, Tensor]:
    """A state dict in open_clip's or OpenAI's naming, which agree for plain ViT models.

    Args:
        where: both, for messages.

    Raises:
        ClipLoadError: it does not fit the model.
    """
    open_clip = import_open_clip()
    state = {
        key: value
        for key, value in weights.items()
        if key not in {"input_resolution", "context_length", "vocab_size"}
    }
    custom_text = isinstance(built, open_clip.model.CustomTextCLIP)
    if custom_text and "positional_embedding" in state:
        state = open_clip.model.convert_to_custom_text_state_dict(state)
    expected = built.state_dict()
    if "logit_scale" in state and state["logit_scale"].numel() == 1:
        state["logit_scale"] = state["logit_scale"].reshape(expected["logit_scale"].shape)
    if problem := misfit(state, expected):
        raise ClipLoadError(
            f"{where}: {problem}; clip.model (--clip) must name the model of these weights"
        )
    return state


def misfit(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> str:
    """Why a state dict does not fit a model, for a message; empty where it fits.

    Args:
        expected: the state dict of the model.
    """
    problems = [f"lacks {name}" for name in expected if name not in state]
    problems += [f"has unknown {name}" for name in state if name not in expected]
    problems += [
        f"{name} is {tuple(state[name].shape)}, expected {tuple(expected[name].shape)}"
        for name in expected
        if name in state and state[name].shape != expected[name].shape
    ]
    if not problems:
        return ""
    return f"the weights do not fit: {first_names(problems, 3, '; ')}"


def not_finite(tensors: Mapping[str, Tensor]) -> str:
    """Why weights cannot be used, for a message: NaN or infinity; empty where all are finite.

    Args:
        tensors: the weights by name, of any type.
    """
    names = [
        name
        for name, values in tensors.items()
        if values.is_floating_point() and values.numel() and not _bounded(values)
    ]
    if not names:
        return ""
    return (
        f"{first_names(names, 1)} holds NaN or infinity, expected finite numbers; the training "
        "that wrote it diverged or the file is damaged: take another one"
    )


def _bounded(values: Tensor) -> bool:
    return all(math.isfinite(bound.item()) for bound in torch.aminmax(values.detach()))


def weights_digest(tensors: Mapping[str, Tensor]) -> str:
    """sha256 over names, types, shapes and bytes of tensors, whatever their order."""
    total = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        total.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        total.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()
