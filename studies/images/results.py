"""Add results of the image studies to one JSON file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def add_result(path: Path, keys: Sequence[str], found: Any) -> None:
    """Write ``found`` at a path of keys, and keep the rest of the file."""
    results = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    place = results
    for key in keys[:-1]:
        place = place.setdefault(key, {})
    place[keys[-1]] = found
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(_rounded(results), indent=1, sort_keys=True) + "\n"
    path.write_text(text, encoding="utf-8")


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(part) for part in value]
    return round(value, 5) if isinstance(value, float) else value
