"""JSON from a stranger: whatever it holds, it is read as what is expected, or a ``ValueError``."""

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

__all__ = ["load_json", "made_of"]

T = TypeVar("T")
Make = Callable[[str, Any], Any]


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

    Inner objects become inner dataclasses, of several possible ones that with the same fields;
    lists become tuples; numbers are finite. Arrays are for the caller to put in place beforehand.

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
    makers = _makers(cast("Any", kind))
    if not isinstance(value, dict) or value.keys() != makers.keys():
        raise ValueError(f"expected exactly {', '.join(makers)}")
    return kind(**{name: make(name, value[name]) for name, make in makers.items()})


@lru_cache(maxsize=64)
def _makers(kind: Any) -> Mapping[str, Make]:
    hints = get_type_hints(kind)
    return {field.name: _maker(hints[field.name]) for field in fields(kind)}


def _maker(hint: Any) -> Make:
    """Return what makes a value of a type, or says that it is of another."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        inner = _maker_of_any([part for part in parts if part is not NoneType])
        return lambda name, value: None if value is None else inner(name, value)
    if is_dataclass(hint):
        return lambda name, value: made_of(cast("type[Any]", hint), value)
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
    """Return what makes the one of some dataclasses whose fields a value has."""
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
    raise ValueError(f"{name} is no JSON number")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(n for n in names if names.count(n) > 1)!r} is there twice")
    return made
