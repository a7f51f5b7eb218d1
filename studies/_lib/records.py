"""Results as dataclasses: written as JSON, and read back strictly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from functools import lru_cache
from types import NoneType
from typing import Any, TypeVar, cast, get_args, get_origin, get_type_hints

from nip_audio.core.metrics import Interval

__all__ = ["plain", "read_record"]

T = TypeVar("T")


def plain(value: Any) -> Any:
    """Return JSON values; intervals have five decimals, and a None by default is left out."""
    if isinstance(value, Interval):
        return value.to_json()
    if is_dataclass(value):
        parts = ((field, getattr(value, field.name)) for field in fields(value))
        return {f.name: plain(p) for f, p in parts if p is not None or f.default is not None}
    if isinstance(value, Mapping):
        return {key: plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    return value


def read_record(kind: type[T], value: Any) -> T:
    """Build a dataclass from JSON values that have its fields, and no others.

    Fields with a default may be missing. Inner dataclasses, sequences and mappings are built by
    their types; what has the type ``Any`` stays as it is.

    Raises:
        ValueError: If a field is missing, unknown or of another type.
    """
    return cast("T", _read(kind, value, kind.__name__))


@lru_cache(maxsize=64)
def _hints(kind: Any) -> Mapping[str, Any]:
    return get_type_hints(kind)


def _read(hint: Any, value: Any, where: str) -> Any:
    origin, parts = get_origin(hint), get_args(hint)
    if NoneType in parts:
        (inner,) = (part for part in parts if part is not NoneType)
        return None if value is None else _read(inner, value, where)
    if is_dataclass(hint):
        return _read_fields(hint, value, where)
    if origin is Mapping and isinstance(value, dict):
        return {key: _read(parts[1], part, f"{where}.{key}") for key, part in value.items()}
    if origin in (Sequence, tuple) and isinstance(value, list):
        return tuple(_read(parts[0], part, where) for part in value)
    if hint is Any or isinstance(value, (int, float) if hint is float else origin or hint):
        return value
    raise ValueError(f"{where} is a {type(value).__name__}, expected {hint}")


def _read_fields(kind: Any, value: Any, where: str) -> Any:
    known = {field.name: field for field in fields(kind)}
    needed = {
        name
        for name, field in known.items()
        if field.default is MISSING and field.default_factory is MISSING
    }
    found = sorted(value) if isinstance(value, dict) else f"a {type(value).__name__}"
    if not isinstance(value, dict) or not needed <= value.keys() <= known.keys():
        raise ValueError(f"{where} has {found}, expected {sorted(known)}")
    hints = _hints(kind)
    return kind(**{n: _read(hints[n], part, f"{where}.{n}") for n, part in value.items()})
