"""Read untrusted JSON strictly: it has exactly the expected structure, or raises ``ValueError``."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
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

__all__ = ["load_json", "build_dataclass"]

T = TypeVar("T")
Make = Callable[[str, Any], Any]


def load_json(text: str | bytes) -> Any:
    """Read one JSON value as the standard defines it: no NaN, no duplicate names, no infinity.

    Raises:
        ValueError: If the text is not JSON, has a duplicate name or a number that is too large to
            be finite, or is nested too deeply.

    Example:
        >>> load_json('{"a": 1, "a": 2}')
        Traceback (most recent call last):
        ...
        ValueError: 'a' occurs twice
    """
    try:
        return json.loads(
            text,
            parse_constant=_refuse_constant,
            parse_float=_finite_float,
            object_pairs_hook=_object,
        )
    except RecursionError as err:
        raise ValueError("it is nested too deeply") from err


def build_dataclass(kind: type[T], value: Any) -> T:
    """Build a dataclass from a JSON object that has exactly its fields, each of the right type.

    Inner objects become dataclasses; of several possible dataclasses, the one with the same fields
    is used. Lists become tuples, and numbers must be finite. Arrays must be in place beforehand.

    Args:
        kind: Dataclass to build.
        value: JSON value as ``load_json`` returns it.

    Raises:
        ValueError: If a field is missing, unknown or of another type.

    Example:
        >>> from dataclasses import dataclass
        >>> @dataclass
        ... class Point:
        ...     x: float
        >>> build_dataclass(Point, {"x": 1.5}), build_dataclass(Point, {"x": "1.5"})
        Traceback (most recent call last):
        ...
        ValueError: x is a str
    """
    makers = _makers(cast("Any", kind))
    if not isinstance(value, dict) or value.keys() != makers.keys():
        raise ValueError(f"expected exactly {', '.join(makers)}")
    return kind(**{name: make(name, value[name]) for name, make in makers.items()})


@lru_cache(maxsize=64)
def _makers(kind: Any) -> Mapping[str, Make]:
    hints = get_type_hints(kind)
    return {field.name: _maker(hints[field.name]) for field in fields(kind)}


def _maker(hint: Any) -> Make:
    """Return a function that converts a JSON value to a type, or raises ``ValueError``."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        inner = _maker_of_any([part for part in parts if part is not NoneType])
        return lambda name, value: None if value is None else inner(name, value)
    if is_dataclass(hint):
        return lambda name, value: build_dataclass(cast("type[Any]", hint), value)
    if origin is tuple:
        return _each(
            list | tuple,
            _maker(parts[0]),
            lambda name, value, make: tuple(make(name, part) for part in value),
        )
    if origin is dict:
        return _each(
            dict,
            _maker(parts[1]),
            lambda name, value, make: {key: make(name, part) for key, part in value.items()},
        )
    if origin is Literal:
        return lambda name, value: value if value in parts else _refuse(name, value)
    if hint is float:
        return _finite
    if origin is not None:
        return lambda name, value: value if isinstance(value, origin) else _refuse(name, value)
    return lambda name, value: value if type(value) is hint else _refuse(name, value)


def _maker_of_any(kinds: list[Any]) -> Make:
    """Return a function that picks the dataclass whose fields a value has."""
    if len(kinds) == 1:
        return _maker(kinds[0])
    fitting = [(_makers(kind).keys(), _maker(kind)) for kind in kinds]

    def make(name: str, value: Any) -> Any:
        for names, inner in fitting:
            if isinstance(value, dict) and value.keys() == names:
                return inner(name, value)
        return _refuse(name, value)

    return make


def _each(kind: Any, inner: Make, make: Callable[[str, Any, Make], Any]) -> Make:
    return lambda name, value: (
        make(name, value, inner) if isinstance(value, kind) else _refuse(name, value)
    )


def _refuse(name: str, value: Any) -> NoReturn:
    raise ValueError(f"{name} is a {type(value).__name__}")


def _finite(name: str, value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        _refuse(name, value)
    try:
        if math.isfinite(value):
            return float(value)
    except OverflowError:
        pass
    raise ValueError(f"{name} is not finite")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _finite_float(text: str) -> float:
    number = float(text)
    if math.isinf(number):  # 1e999 is JSON, and no number of ours
        raise ValueError(f"{text[:40]} is too large")
    return number


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(n for n in names if names.count(n) > 1)!r} occurs twice")
    return made
