"""Base of every section of a configuration."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Gt
from pydantic import BaseModel, ConfigDict, Strict

# Strict, so that `rounds: true` is refused and does not become one round.
Integer = Annotated[int, Strict()]
Real = Annotated[float, Strict()]
PositiveInt = Annotated[int, Strict(), Gt(0)]
PositiveFloat = Annotated[float, Strict(), Gt(0)]
NonNegativeFloat = Annotated[float, Strict(), Ge(0)]


class Part(BaseModel):
    """A frozen section of a configuration that refuses keys it does not know."""

    model_config = ConfigDict(defer_build=True, frozen=True, extra="forbid", allow_inf_nan=False)
