"""JSON from a stranger: whatever it holds, it is read as what is expected, or a ``ValueError``."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import lru_cache
from types import NoneType, UnionType
from typing import (
    Any,
    Literal,
    NoReturn,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

__all__ = ["load_json", "made_of"]

T = TypeVar("T")


def load_json(text: str | bytes) -> Any:
    """Read one JSON value, as the standard has it: no NaN, no name twice, no bottomless nesting.

    Raises:
        ValueError: If it is anything else.

    Example:
        >>> load_json('{"a": 1, "a": 2}')
        Traceback (most recent call last):
        ...
        ValueError: 'a' is there twice
    """
    try:
        return json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_object)
    except RecursionError as err:
        raise ValueError("it is nested too deep") from err


def made_of(kind: type[T], value: Any) -> T:
    """Make a dataclass out of a JSON object that has exactly its fields, each of its type.

    Inner objects become inner dataclasses, lists tuples; numbers are finite. Arrays are for the
    caller to put in place beforehand.

    Raises:
        ValueError: If something is missing, too much, or of another type.

    Example:
        >>> from dataclasses import dataclass
        >>> @dataclass
        ... class Point:
        ...     x: float
        >>> made_of(Point, {"x": 1.5}), made_of(Point, {"x": "1.5"})
        Traceback (most recent call last):
        ...
        ValueError: x is a str
    """
    hints = _hints(cast("Any", kind))
    if not isinstance(value, dict) or value.keys() != hints.keys():
        raise ValueError(f"expected exactly {', '.join(hints)}")
    return kind(**{name: _made(name, hint, value[name]) for name, hint in hints.items()})


@lru_cache(maxsize=64)
def _hints(kind: Any) -> Mapping[str, Any]:
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in fields(kind)}


def _made(name: str, hint: Any, value: Any) -> Any:
    origin = get_origin(hint)
    if origin in (Union, UnionType):
        return _one_of(name, get_args(hint), value)
    if is_dataclass(hint) and isinstance(hint, type):
        return made_of(hint, value)
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(_made(name, get_args(hint)[0], part) for part in value)
    if origin is dict and isinstance(value, dict):
        return {key: _made(name, get_args(hint)[1], part) for key, part in value.items()}
    if origin is Literal and isinstance(value, str) and value in get_args(hint):
        return value
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return _finite(name, value)
    if origin is None and type(value) is hint:
        return value
    if origin not in (None, tuple, dict, Literal) and isinstance(value, origin):
        return value
    raise ValueError(f"{name} is a {type(value).__name__}")


def _one_of(name: str, kinds: tuple[Any, ...], value: Any) -> Any:
    if value is None and NoneType in kinds:
        return None
    (kind,) = (kind for kind in kinds if kind is not NoneType)
    return _made(name, kind, value)


def _finite(name: str, value: float) -> float:
    try:
        if math.isfinite(value):
            return float(value)
    except OverflowError:
        pass
    raise ValueError(f"{name} is not finite")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(n for n in names if names.count(n) > 1)!r} is there twice")
    return made
