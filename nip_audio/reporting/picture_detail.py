"""Write what was drawn of one image as HTML."""

from __future__ import annotations

from torch import Tensor

from nip_audio.reporting.escaping import html_text
from nip_audio.reporting.media import pixels_url
from nip_audio.reporting.picture_examine import ExaminedImage
from nip_audio.reporting.sections import evidence_html, section
from nip_audio.screening.words import IMAGES

__all__ = ["image_detail_html"]

_TINY = 1e-6


def image_detail_html(examined: ExaminedImage) -> str:
    """Return the image, its purified copy, and the detector's evidence as HTML."""
    text = f"Shown at the size of the model's input. The model predicts {examined.named}. "
    if examined.after is not None:
        same = examined.named_after == examined.named
        text += f"For the purified copy it predicts {'the same' if same else examined.named_after}."
    return section("Look", text, _sights(examined)) + evidence_html(examined.evidence, IMAGES)


def _sights(examined: ExaminedImage) -> str:
    after = examined.after
    if after is None:
        return f'<div class="sights">{_sight("Original", examined.before)}</div>'
    change = after - examined.before
    largest = max(float(change.abs().max()), _TINY)
    shown = (
        ("Original", examined.before),
        ("Purified", after),
        (
            f"Difference: grey is no change, the largest change is {largest:.3f}",
            0.5 + 0.5 * change / largest,
        ),
    )
    return f'<div class="sights">{"".join(_sight(name, pixels) for name, pixels in shown)}</div>'


def _sight(name: str, pixels: Tensor) -> str:
    said = html_text(name)
    return (
        f'<div class="sight"><h4>{said}</h4>'
        f'<img class="pixels" src="{pixels_url(pixels)}" alt="{said}"></div>'
    )
