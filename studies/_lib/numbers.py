"""Numbers as every page writes them, and the query by which prose takes one from the results."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from nip_audio.core.metrics import Interval

__all__ = ["NOT_EVALUATED", "NothingFoundError", "look_up", "number", "percent", "signed"]

NOT_EVALUATED = "not evaluated"

Shown = Interval | Mapping[str, float]
"""A value and its interval, as measured or as read from JSON."""


class NothingFoundError(ValueError):
    """A query asks for what is not in the results."""


def _written(interval: Shown, form: str, factor: float = 1.0) -> str:
    found = interval.to_json() if isinstance(interval, Interval) else interval
    value, low, high = (format(factor * found[key], form) for key in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def number(interval: Shown | None, digits: int = 3) -> str:
    """Write a value and its 95 % interval."""
    return NOT_EVALUATED if interval is None else _written(interval, f".{digits}f")


def percent(interval: Shown | None) -> str:
    """Write a share and its 95 % interval in percent."""
    return NOT_EVALUATED if interval is None else _written(interval, ".1f", 100)


def signed(interval: Shown, digits: int = 1, *, factor: float = 1.0) -> str:
    """Write a difference and its 95 % interval, with signs."""
    return _written(interval, f"+.{digits}f", factor)


_STEP = re.compile(r"([^/\[\]]*)((?:\[[^\]]*\])?)(?:/|$)")
_OVER: Mapping[str, Callable[[list[float]], float]] = {
    "min": min,
    "max": max,
    "mean": lambda values: sum(values) / len(values),
    "sum": sum,
    "count": len,
}


def look_up(query: str, results: Mapping[str, Any]) -> str:
    """Answer a query such as ``max 1% nip/cells[system=xvector;eps=0.002]/asr``.

    A query has an optional word, a format and a path. The path goes through keys, separated by
    slashes; ``[key=value;…]`` keeps the items of a list that have these values (``key>=value``: at
    least this one), ``*`` goes to every item or value, and a value with an interval counts as its
    ``value``. The word (min, max, mean,
    sum, count) makes one number of several. The format is ``0%`` or ``1%`` for a share in percent
    with so many digits, or one of Python's, such as ``.3f`` or ``,``. Between paths `` * ``
    multiplies and `` - `` subtracts.

    Raises:
        NothingFoundError: If nothing is found.
        ValueError: If several numbers are found and there is no word.
    """
    word, _, rest = query.strip().partition(" ")
    form, _, path = rest.partition(" ")
    if word not in _OVER:
        word, form, path = "", word, rest
    value, *others = (_one(part, word, results) for part in path.split(" - "))
    value -= sum(others)
    if form in ("d", ","):
        return format(round(value), form)
    if form.endswith("%"):
        return f"{100 * value:.{form[:-1]}f}"
    return format(value, form)


def _one(path: str, word: str, results: Mapping[str, Any]) -> float:
    product = 1.0
    for factor in path.split(" * "):
        found = [_value(one) for one in _walk(results, factor.strip())]
        if not found or (not word and len(found) > 1):
            error = ValueError if found else NothingFoundError
            raise error(f"{factor!r} finds {len(found)} numbers, expected one")
        product *= _OVER[word](found) if word else found[0]
    return product


def _walk(place: Any, path: str) -> list[Any]:
    places = [place]
    for name, condition in _STEP.findall(path):
        if not name and not condition:
            continue
        if name:
            places = [after for one in places for after in _into(one, name)]
        if condition:
            wanted = dict(part.split("=", 1) for part in condition[1:-1].split(";"))
            places = [
                item
                for one in places
                for item in (one if isinstance(one, list) else one.values())
                if all(_holds(item, key, value) for key, value in wanted.items())
            ]
    return [one for one in places if one is not None]


def _into(place: Any, name: str) -> list[Any]:
    if isinstance(place, list):
        return list(place) if name == "*" else [place[int(name)]]
    if name == "*":
        return list(place.values())
    return [place[name]] if name in place else []


def _field(item: Mapping[str, Any], key: str) -> object:
    """Return what stands under a key, or under keys joined by dots."""
    if key in item or "." not in key:
        return item.get(key)
    first, _, rest = key.partition(".")
    return _field(item.get(first) or {}, rest)


def _holds(item: Mapping[str, Any], key: str, wanted: str) -> bool:
    """Tell whether a field has a value, or, with a key that ends in ``>``, at least this value."""
    if key.endswith(">"):
        return float(_field(item, key[:-1])) >= float(wanted)  # type: ignore[arg-type]
    return _same(_field(item, key), wanted)


def _same(value: object, wanted: str) -> bool:
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            top, _, bottom = wanted.partition("/")
            return abs(value - float(top) / float(bottom or 1)) < 1e-9
        except ValueError:
            return False
    return str(value) == wanted


def _value(found: Any) -> float:
    return float(found["value"]) if isinstance(found, Mapping) else found
