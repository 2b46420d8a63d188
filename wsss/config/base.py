"""What every section of the configuration shares."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Variant = Literal["published", "corrected"]
Share = Annotated[float, Field(ge=0.0, le=1.0)]


class Section(BaseModel):
    """A section of the configuration: immutable, and unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    def effective(self) -> dict[str, Any]:
        """The values that can change a result, for keys and provenance."""
        return self.model_dump(mode="json")


def variant_field(*, published: Any, corrected: Any, description: str) -> Any:
    """A field where the published code departs from its paper, or from what a user should run.

    Its default is ``"auto"``: the value that the run's ``variant`` names. An explicit value wins
    over the variant, so one departure can be switched alone.

    Args:
        published: the value with which the authors' numbers were made.
        corrected: the value that a user should run.
        description: one sentence that says what the option does.
    """
    return Field(
        default="auto",
        description=f"{description} auto = {corrected} (corrected) or {published} (published).",
        json_schema_extra={"published": published, "corrected": corrected},
    )


def resolve_variant(section: Section, variant: Variant) -> Section:
    """Replace every ``"auto"`` of ``section`` and the sections inside it by the variant's value."""
    update: dict[str, Any] = {}
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        extra = field.json_schema_extra
        if isinstance(value, Section):
            update[name] = resolve_variant(value, variant)
        elif value == "auto" and isinstance(extra, dict) and variant in extra:
            update[name] = extra[variant]
    return section.model_copy(update=update)
