"""Compare names that systems and programs spell differently."""

from __future__ import annotations

import unicodedata

__all__ = ["composed", "one_spelling"]


def composed(text: str) -> str:
    r"""Return a text in the Unicode form in which an accented letter is one character (NFC).

    Some systems store it as two (NFD).

    Example:
        >>> composed("e\u0301") == "\u00e9"
        True
    """
    return unicodedata.normalize("NFC", text)


def one_spelling(name: str) -> str:
    r"""Return a name as it is compared with others: composed, and without outer spaces.

    Example:
        >>> one_spelling("Zoe\u0308 ") == "Zo\u00eb"
        True
    """
    return composed(name).strip()
