"""Names of the attacks and purifiers, read from the source of their registries.

The help of a command lists them. To import the registries would take seconds, since they import
torch.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

_PACKAGE = Path(__file__).resolve().parents[1]


def attack_names() -> list[str]:
    """Return the names of the attacks on recordings, in the order of the registry."""
    return [
        name
        for name, options in _entries("attacks", "ATTACKS").items()
        if "raw" in options.get("levels", ("raw",)) and not options.get("images_only", False)
    ]


def purifier_names() -> list[str]:
    """Return the names of the purifiers, in the order of the registry."""
    return list(_entries("purifiers", "PURIFIERS"))


def _entries(package: str, table: str) -> dict[str, dict[str, Any]]:
    """Return the keys of a registry, each with the literal keyword arguments of its entry."""
    source = (_PACKAGE / package / "registry.py").read_text(encoding="utf-8")
    found: dict[str, dict[str, Any]] = {}
    for node in ast.parse(source).body:
        if not (isinstance(node, ast.AnnAssign) and isinstance(node.value, ast.Dict)):
            continue
        if getattr(node.target, "id", "") == table:
            for key, value in zip(node.value.keys, node.value.values, strict=True):
                if key is not None:
                    found[ast.literal_eval(key)] = _keywords(value)
    return found


def _keywords(entry: ast.expr) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for keyword in entry.keywords if isinstance(entry, ast.Call) else ():
        if keyword.arg in ("levels", "images_only"):
            found[keyword.arg] = ast.literal_eval(keyword.value)
    return found
