"""What all file kinds share: strictness, camelCase keys, and the scalar types with their JSON Schema."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    Strict,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from kaito_catalog import quantity
from kaito_catalog.quantity import Quantity

API_VERSION: TypeAlias = Literal["catalog.kaito.sh/v1alpha1"]

MISSING_WORDS = ("TBD", "N/A")
"""What people write where a figure is not known; it counts as missing."""


def camel_case(name: str) -> str:
    """The YAML key of a field: ``total_gpu_memory`` is ``totalGPUMemory``."""
    first, *rest = name.split("_")
    return first + "".join(word.upper() if word in ("gpu", "cpu") else word.capitalize() for word in rest)


class Model(BaseModel):
    """A frozen part of a file; unknown keys are errors and nothing is coerced."""

    model_config = ConfigDict(
        frozen=True,
        strict=True,
        extra="forbid",
        alias_generator=camel_case,
        validate_by_alias=True,
        validate_by_name=False,
        regex_engine="python-re",
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )


T = TypeVar("T")
Items = Annotated[tuple[T, ...], Strict(False)]
"""A YAML list, kept as a tuple."""


def exactly(pattern: str) -> str:
    """A pattern for the whole string; in Python `$` alone would also match before a final newline."""
    return rf"^(?:{pattern})$(?!\n)"


def _whole_number(value: Any) -> Any:
    # JSON Schema calls 4.0 an integer, and so do we.
    return int(value) if isinstance(value, float) and value.is_integer() else value


Count = Annotated[int, Field(ge=1, le=10**15), BeforeValidator(_whole_number)]
"""A whole number from 1 on."""
Bytes = Annotated[int, Field(ge=0, le=10**18), BeforeValidator(_whole_number)]
"""A size in bytes."""
Number = Annotated[float, Strict(False)]
Text = Annotated[str, Field(min_length=1)]
IsoDate = Annotated[str, Field(pattern=exactly("[0-9]{4}-[0-9]{2}-[0-9]{2}"))]
"""A date, ``2025-05-29``; whether the calendar has it is a check's business (DOC001)."""
Revision = Annotated[str, Field(pattern=exactly("[0-9a-f]{40}"))]
Sha256 = Annotated[str, Field(pattern=exactly("[0-9a-f]{64}"))]
RepoId = Annotated[
    str,
    Field(pattern=exactly(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")),
]
CatalogName = Annotated[str, Field(pattern=exactly(r"[a-z0-9]([a-z0-9._-]{0,94}[a-z0-9])?"))]
Url = Annotated[str, Field(pattern=exactly(r'https?://[^\s<>"]{1,2000}'))]


def is_missing(value: object) -> bool:
    """Whether a claim was not made: absent, empty, ``TBD`` or ``N/A``."""
    return value is None or value == "" or value in MISSING_WORDS


def _size(value: Any) -> Quantity:
    if isinstance(value, Quantity):
        return value
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise PydanticCustomError("quantity", "a size is a number and a unit, such as 140GB")
    try:
        return quantity.parse(
            value if isinstance(value, str) else f"{value:g}" if value < 1e12 else str(value)
        )
    except ValueError as error:
        raise PydanticCustomError("quantity", "{problem}", {"problem": str(error)}) from None


def _written(value: Quantity | str | None) -> str | None:
    return None if value is None else str(value)


def _claimed_size(value: Any) -> Quantity | str | None:
    return value if value is None or value in MISSING_WORDS else _size(value)


Size = Annotated[
    Quantity,
    PlainValidator(_size),
    PlainSerializer(_written),
    WithJsonSchema({"type": "string", "pattern": exactly(quantity.PATTERN)}),
]
ClaimedSize = Annotated[
    Quantity | str | None,
    PlainValidator(_claimed_size),
    PlainSerializer(_written),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": exactly(rf"{quantity.PATTERN}|TBD|N/A")},
                {"type": "null"},
            ],
        }
    ),
]
"""A size somebody claims: a quantity with its unit, or TBD, N/A or nothing."""


def _claimed_count(value: Any) -> int | str | None:
    if value is None or value in MISSING_WORDS:
        return None if value is None else str(value)
    number = _whole_number(value)
    if isinstance(number, bool) or not isinstance(number, int):
        raise PydanticCustomError("count", "a count is a whole number, without quotes")
    if not 1 <= number <= 10**9:
        raise PydanticCustomError("count", "a count is at least 1 and at most 1,000,000,000")
    return number


ClaimedCount = Annotated[
    int | str | None,
    PlainValidator(_claimed_count),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 1, "maximum": 10**9},
                {"enum": ["TBD", "N/A"]},
                {"type": "null"},
            ]
        }
    ),
]
"""A number somebody claims: a whole number, or TBD, N/A or nothing."""
