"""Settings that cannot be used in, sentences with key, value and remedy out."""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

_PLAIN = {
    "tuple_type": 'must be a list such as ["a", "b"]',
    "dict_type": "must be a table of names and texts",
    "model_type": "must be a table of settings",
    "dataclass_type": "must be a table of settings",
    "int_type": "must be an integer without a unit",
    "int_parsing": "must be an integer without a unit",
    "int_from_float": "must be an integer without a unit",
    "float_type": "must be a number without a unit",
    "float_parsing": "must be a number without a unit",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "string_type": "must be a text in quotes",
}
"""Where pydantic speaks of Python's types, which an operator need not know."""


def explain(error: ValidationError) -> str:
    """What is wrong, one setting a line."""
    lines = []
    for problem in error.errors():
        key = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            lines.append(f"{key} = {problem['input']!r} is not a setting; remove it or correct its name")
        else:
            said = _with_value(_PLAIN.get(problem["type"], problem["msg"]), problem["input"])
            lines.append(f"{key}: {said}" if key else said)
    return "\n".join(lines)


def _with_value(problem: str, given: object) -> str:
    """What is wrong, with the value that is. Of a section only what it is about: others may be secrets."""
    own = problem.removeprefix("Value error, ")
    # Pydantic's own sentences say "got" as well, but not what.
    if own != problem and ", got " in own:
        return own
    if isinstance(given, dict):
        given = {key: value for key, value in given.items() if key in own}
    return f"{own}, got {given!r}"


def check_finite(settings: BaseModel) -> None:
    """Raises ValueError for a number that is none, or has no end: no comparison finds the first, no wait the second."""
    for key, value in _leaves(settings, ""):
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{key} must be finite, got {value}: give a number")


def check_numbers(given: Mapping[str, Any], defaults: Mapping[str, object], path: str = "") -> None:
    """Raises ValueError for true or false where a number belongs, which would count as 1 or 0. Any: as it was read."""
    for key, value in given.items():
        default = defaults.get(key)
        if isinstance(value, dict):
            check_numbers(value, _fields(default), f"{path}{key}.")
        elif type(value) is bool and type(default) in (int, float):
            raise ValueError(f"{path}{key} must be a number, got {str(value).lower()}: give how many")


def _leaves(section: object, path: str) -> Iterator[tuple[str, object]]:
    for name, value in _fields(section).items():
        if _fields(value):
            yield from _leaves(value, f"{path}{name}.")
        else:
            yield f"{path}{name}", value


def _fields(section: object) -> Mapping[str, object]:
    if isinstance(section, BaseModel):
        return dict(section)
    if dataclasses.is_dataclass(section) and not isinstance(section, type):
        return {field.name: getattr(section, field.name) for field in dataclasses.fields(section)}
    return {}
