"""What all sections of the configuration have in common. Pure."""

from __future__ import annotations

from typing import get_args

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError


class Section(BaseModel):
    """A mapping of the file: unknown keys refused, values fixed after loading."""

    # Validators are built when they are first used: those of sections only as a part of the whole.
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, defer_build=True)

    @field_validator("*", mode="before")
    @classmethod
    def _no_boolean_as_a_number(cls, value: object, info: ValidationInfo) -> object:
        """To Python, true is 1: `mss: true` would be a size of one byte."""
        annotation = cls.model_fields[info.field_name or ""].annotation
        kinds = (annotation, *get_args(annotation))
        if isinstance(value, bool) and bool not in kinds and {int, float}.intersection(kinds):
            raise PydanticCustomError("bool_for_number", "a boolean for a number")
        return value
