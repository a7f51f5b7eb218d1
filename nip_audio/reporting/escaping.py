"""Escape untrusted text, such as file names, for HTML, JSON, links and CSV."""

from __future__ import annotations

import json
import os
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

__all__ = ["csv_text", "html_text", "json_for_html", "link_to", "visible"]

_MARKUP = {ord(c): f"\\u{ord(c):04x}" for c in "<>&"}
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def visible(text: str) -> str:
    r"""Escape characters that do not print: control characters, bidi marks, undecodable bytes.

    Example:
        >>> visible("gpj.\u202egood\n")
        'gpj.\\u202egood\\n'
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def html_text(text: str) -> str:
    """Escape text for an HTML element or a quoted attribute.

    Example:
        >>> html_text('<b title="x">')
        '&lt;b title=&quot;x&quot;&gt;'
    """
    return escape(visible(text), quote=True)


def json_for_html(value: Any) -> str:
    r"""Return JSON for a ``script`` element; nothing in it can end the element.

    Example:
        >>> json_for_html({"name": "</script>"})
        '{"name":"\\u003c/script\\u003e"}'
    """
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.translate(_MARKUP)


def link_to(path: Path, folder: Path) -> str:
    """Return a relative link from a page in ``folder`` to a file, whatever bytes its name has.

    Example:
        >>> link_to(Path("/a/b/50% <x>.wav"), Path("/a/run"))
        '../b/50%25%20%3Cx%3E.wav'
        >>> link_to(Path("/a/javascript:x"), Path("/a"))
        './javascript%3Ax'
    """
    relative = Path(os.path.relpath(path, folder)).as_posix()
    link = quote(os.fsencode(relative))
    return link if link.startswith("../") else f"./{link}"


def csv_text(text: str) -> str:
    """Escape text that a spreadsheet would compute as a formula.

    Example:
        >>> csv_text("=1+1"), csv_text("a.wav")
        ("'=1+1", 'a.wav')
    """
    shown = visible(text)
    return f"'{shown}" if shown.startswith(_FORMULA) else shown
