"""What all sections of the configuration share, and how ``auto`` is filled in.

A user may write ``auto`` for some options. It is replaced before the values are validated, so that
the types of a section do not know the word.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic.fields import FieldInfo

AUTO: Final = "auto"
Variant = Literal["published", "corrected"]
Split = Literal["train", "val"]
Supervision = Literal["tags", "masks"]
"""What trainings learn from: image-level tags, or the pixel labels of the training images."""
LearnedFrom = Literal["tags", "mixed", "masks"]
"""What an artifact goes back to. ``mixed``: tags, and pixel labels of some training images
(``retrain.corrected``)."""
LEARNED_FROM: Final[tuple[LearnedFrom, ...]] = ("tags", "mixed", "masks")
"""From the weakest to the strongest."""
UPPER_BOUND: Final = "fully supervised (upper bound)"
"""What everything is called that was trained on pixel labels."""
MIXED: Final = "mixed supervision (corrected masks)"
"""What everything is called that was trained on pixel labels of some images."""
_CALLED: Final[Mapping[LearnedFrom, str]] = {"tags": "", "mixed": MIXED, "masks": UPPER_BOUND}
Share = Annotated[float, Field(ge=0.0, le=1.0)]
MOST_SCALE = 16
Scales = Annotated[list[Annotated[float, Field(gt=0, le=MOST_SCALE)]], Field(min_length=1)]
TRAINING_THREADS = (
    "Threads of the training's arithmetic on a CPU. The weights' last bits depend on their number, "
    "so it does not follow the machine or --cores. More than there are cores makes it slow."
)
"""Describes ``threads`` of both trainings."""


class Section(BaseModel):
    """A section of the configuration: immutable, and unknown keys are errors."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False
    )

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_truth_values(cls, value: Any, info: Any) -> Any:
        """YAML reads yes, no, on and off as true and false, which would be taken for 1 and 0."""
        values = value if isinstance(value, list | tuple) else (value,)
        truth = next((item for item in values if isinstance(item, bool)), None)
        if truth is not None and _holds_numbers(cls, str(info.field_name)):
            raise ValueError(f"found {truth}, expected a number")
        return value

    def effective(self) -> dict[str, Any]:
        """The values that can change a result, for keys and provenance."""
        return self.model_dump(mode="json")


def with_supervision(text: str, supervision: LearnedFrom) -> str:
    """A name or title, with `UPPER_BOUND` or `MIXED` behind it where pixel labels taught it."""
    return ", ".join(filter(None, [text, _CALLED[supervision]]))


def learned_from(values: Mapping[str, Any]) -> LearnedFrom:
    """What a stage learns from, by the values that it reads.

    Args:
        values: plain ones, by key: ``supervision``, and ``retrain`` or ``retrain.corrected``.
    """
    if values.get("supervision") == "masks":
        return "masks"
    corrected = values.get("retrain.corrected") or values.get("retrain", {}).get("corrected")
    return "mixed" if corrected else "tags"


def variant_field(*, published: Any, corrected: Any, description: str, **bounds: Any) -> Any:
    """An option where the published code differs from its paper, or from what a user should run.

    A user may write ``auto`` (the default in a file): the value of the run's ``variant``. An
    explicit value wins over the variant, so each departure can be switched alone. In Python the
    default is the corrected value.

    Args:
        published: the value with which the authors' numbers were made.
        corrected: the value that a user should run.
        description: one sentence that says what the option does.
        bounds: of `Field`.
    """
    return Field(
        default=corrected,
        description=f"{description} auto = {_yaml(corrected)} (corrected) "
        f"or {_yaml(published)} (published).",
        json_schema_extra={"published": published, "corrected": corrected},
        **bounds,
    )


def chain_field(default: Any, *, description: str, **bounds: Any) -> Any:
    """An option whose ``auto`` depends on other options, as `Config` says; else a plain field."""
    return Field(default, description=description, json_schema_extra={AUTO: True}, **bounds)


def takes_auto(field: FieldInfo) -> bool:
    """Whether a user may write ``auto`` for a field."""
    extra = field.json_schema_extra
    return isinstance(extra, dict) and not extra.keys().isdisjoint({AUTO, "published"})


def fill_variant(section: type[Section], values: Any, variant: Variant) -> Any:
    """The raw values of a section with those of ``variant`` for each ``auto`` and missing option.

    Args:
        section: the section's model; the sections inside it are filled in too.
        values: keys and values as a user wrote them; anything else is returned as it is.
    """
    if not isinstance(values, Mapping):
        return values
    filled = dict(values)
    for name, field in section.model_fields.items():
        extra = field.json_schema_extra
        inner = inner_section(field)
        if isinstance(extra, dict) and variant in extra:
            if filled.get(name, AUTO) == AUTO:
                filled[name] = extra[variant]
        elif inner and (name in filled or isinstance(field.default, Section)):
            default = field.default.model_dump(exclude_unset=True) if field.default else {}
            given = filled.get(name, {})
            merged = {**default, **given} if isinstance(given, Mapping) else given
            filled[name] = fill_variant(inner, merged, variant)
    return filled


def _holds_numbers(section: type[Section], name: str) -> bool:
    """Whether a field holds numbers, but no true or false."""
    kinds = {section.model_fields[name].annotation}
    while inner := {part for kind in kinds for part in get_args(kind)} - kinds:
        kinds |= inner
    return not kinds.isdisjoint({int, float}) and kinds.isdisjoint({bool, Any})


def block_count(count: int | None, share: float, depth: int) -> int:
    """A number of blocks: as configured, or a share of an encoder's depth, at least one."""
    return max(1, round(share * depth)) if count is None else count


def value_at(config: Section, key: str) -> Any:
    """The value of a key with dots: ``masks.crf``."""
    return functools.reduce(getattr, key.split("."), config)


def plain_value(value: Any) -> Any:
    """A value for JSON."""
    return value.effective() if isinstance(value, Section) else value


def overlay(base: Mapping[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with the values of ``top``: mappings merge, everything else is replaced."""
    result = dict(base)
    for key, value in top.items():
        if isinstance(value, Mapping) and isinstance(result.get(key), Mapping):
            result[key] = overlay(result[key], value)
        else:
            result[key] = value
    return result


def drop_key(values: dict[str, Any], key: str) -> None:
    """Remove a key with dots from plain values, if it is there."""
    name, _, rest = key.partition(".")
    if not rest:
        values.pop(name, None)
    elif name in values:
        drop_key(values[name], rest)


def inner_section(field: FieldInfo) -> type[Section] | None:
    """The model of a field that holds a section, also where the section is optional."""
    for kind in (field.annotation, *get_args(field.annotation)):
        if isinstance(kind, type) and issubclass(kind, Section):
            return kind
    return None


def _yaml(value: object) -> str:
    plain = list(value) if isinstance(value, tuple) else value
    return yaml.safe_dump(plain, default_flow_style=True).removesuffix("\n").removesuffix("\n...")
