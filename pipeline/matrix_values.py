"""What every block of matrix.yaml is made of: the strict base and the values with a meaning of their own."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, StringConstraints
from pydantic_core import PydanticCustomError


class Strict(BaseModel):
    """Frozen, and a key that no field has is a fault."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def _share(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise PydanticCustomError("share", "expected a number from 0 to 1")
    return value


def _version(value: Any) -> Any:
    if isinstance(value, float | int):
        raise PydanticCustomError("version", "expected a version in quotes")
    return value


ServeValue = bool | int | float | str | list[Any] | dict[str, Any]
Share = Annotated[float, BeforeValidator(_share)]
Version = Annotated[str, BeforeValidator(_version), StringConstraints(min_length=1)]
Id = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]*$")]
CellId = Annotated[str, StringConstraints(pattern=r"^[a-z0-9._-]+/[a-z0-9._-]+$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
# One folder or file below another: no way out of it.
Inside = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]*$")]
# Of an environment.
Variable = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


class Text(Strict):
    """The same in the card's two languages."""

    en: str
    zh: str


class Problem(Text):
    """What a user should know before it bites; shown on the card."""

    source: str
