"""What an error says of the names that there are, when one is asked for that there is not."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["near_names"]

_MOST = 24


def near_names(name: str, names: Iterable[str]) -> str:
    """Return the names most like ``name``, or, if none is, those that are known.

    Example:
        >>> near_names("PDG", ["pgd", "fgsm"])
        'near: pgd'
        >>> near_names("nobody", ["pgd", "fgsm"])
        'known: pgd, fgsm'
    """
    known = list(names)
    by_lower = {one.lower(): one for one in known}
    near = difflib.get_close_matches(name.lower(), by_lower, n=3)
    if near:
        return f"near: {', '.join(by_lower[one] for one in near)}"
    rest = len(known) - _MOST
    some = f" and {rest} more" if rest > 0 else ""
    return f"known: {', '.join(known[:_MOST]) or 'none'}{some}"
