"""JSON from a stranger: whatever it holds, it is read, or it is a ``ValueError``."""

from __future__ import annotations

import json
from typing import Any, NoReturn

__all__ = ["load_json"]


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


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(n for n in names if names.count(n) > 1)!r} is there twice")
    return made
