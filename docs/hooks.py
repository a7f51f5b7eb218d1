"""Turn TeX into MathML while the pages are built, so that they need no script and no network.

``pymdownx.arithmatex`` finds the formulas; browsers draw MathML by themselves.
"""

from __future__ import annotations

import html
import re
from typing import Any

from latex2mathml.converter import convert

_FORMULA = re.compile(
    r'<(?P<tag>span|div) class="arithmatex">\s*\\(?:\(|\[)(?P<tex>.*?)\\(?:\)|\])\s*</(?P=tag)>',
    re.DOTALL,
)


def on_page_content(content: str, **_: Any) -> str:
    """Replace every formula of a page."""
    return _FORMULA.sub(_mathml, content)


def _mathml(found: re.Match[str]) -> str:
    tex = html.unescape(found["tex"]).strip()
    display = "block" if found["tag"] == "div" else "inline"
    return str(convert(tex, display=display))
