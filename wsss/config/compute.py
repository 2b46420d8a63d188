"""The section on how the work is done."""

from __future__ import annotations

from pydantic import Field, PositiveInt

from wsss.config.base import Section


class ComputeConfig(Section):
    """Resources; nothing here changes a result on the CPU."""

    device: str = Field(
        "auto",
        pattern=r"^[a-z]+(:[0-9]{1,3})?$",
        description="auto (CUDA if there is one, else CPU), cpu, cuda, cuda:1 …",
    )
    batch: PositiveInt = Field(
        8, description="Images per batch outside training (CAMs, prediction)."
    )
    workers: PositiveInt = Field(
        2,
        le=1024,
        description="Processes or threads that decode images and run CRFs, per job. With 1 no "
        "other process is started, and no shared memory (/dev/shm) is needed.",
    )
