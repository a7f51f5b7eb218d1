"""Suggest close matches for an unknown name, for use in error messages."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["suggest_names"]

_MOST = 24


def suggest_names(name: str, names: Iterable[str]) -> str:
    """Describe the known names most like ``name``, or all known names if none is similar.

    Args:
        name: Unknown name that was asked for.
        names: Known names.

    Returns:
        Text for the end of an error message; a long list is shortened.

    Example:
        >>> suggest_names("PDG", ["pgd", "fgsm"])
        'did you mean pgd?'
        >>> suggest_names("nobody", ["pgd", "fgsm"])
        'known: pgd, fgsm'
    """
    known = list(names)
    by_lower = {one.lower(): one for one in known}
    near = difflib.get_close_matches(name.lower(), by_lower, n=3)
    if near:
        return f"did you mean {' or '.join(by_lower[one] for one in near)}?"
    rest = len(known) - _MOST
    some = f" and {rest} more" if rest > 0 else ""
    return f"known: {', '.join(known[:_MOST]) or 'none'}{some}"
