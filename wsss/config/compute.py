"""The section on how the work is done."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import Field, PositiveInt, field_validator

from wsss.config.base import Section, chain_field

_DEVICE = r"^(auto|cpu|cuda(:[0-9]{1,3})?)$"


class ComputeConfig(Section):
    """Resources; of these, ``precision`` alone changes a result on the CPU."""

    device: str = Field(
        "auto",
        pattern=_DEVICE,
        description="auto (CUDA if there is one, else CPU), cpu, cuda, cuda:1 …",
    )
    precision: Literal["auto", "float32", "tf32", "bf16"] = Field(
        "auto",
        description=(
            "How stages that compute on the device multiply. float32: exactly. tf32: on a GPU with "
            "factors of 10 bits; on a CPU the same as float32. bf16: the same, and heads of "
            "refiners and segmenters in bfloat16. auto = tf32 on a GPU, float32 on a CPU. The "
            "frozen encoder's weights have a type of their own (clip.precision)."
        ),
    )
    batch: PositiveInt = Field(
        8, description="Images per batch outside training (CAMs, prediction)."
    )
    workers: PositiveInt = chain_field(
        2,
        le=1024,
        description="Processes or threads that decode images and run CRFs, per job (in a training "
        "per GPU). With 1 no other process is started, and no shared memory (/dev/shm) is needed. "
        "auto = the CPUs per task in a Slurm job. Elsewhere it is the number of cores, or with "
        "GPUs the cores per GPU less one, and at most 8.",
    )

    save_memory: bool = Field(
        False,
        description="Trainings keep less for the backward pass and compute it again: equal "
        "gradients, more time per step. They also do so where a GPU's memory runs out. It serves "
        "WeakCLIP as published, which trains CLIP's towers.",
    )

    @field_validator("device", mode="before")
    @classmethod
    def _known_device(cls, device: Any) -> Any:
        if isinstance(device, str) and not re.fullmatch(_DEVICE, device):
            raise ValueError(f"found {device!r}, expected auto, cpu, cuda or cuda:1 …")
        return device
