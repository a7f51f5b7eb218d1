"""Draw one image: the original, its purified copy, and the evidence for the verdict."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from nip_audio.image.adapter import Image
from nip_audio.purifiers.base import Purifier
from nip_audio.reporting.escaping import html_text
from nip_audio.reporting.evidence import Evidence
from nip_audio.reporting.media import pixels_url
from nip_audio.reporting.sections import evidence_html, section
from nip_audio.screening.images import Images
from nip_audio.workflows.images import ImageWorkflow

__all__ = ["ExaminedImage", "examine_image"]

_TINY = 1e-6


@dataclass(frozen=True)
class ExaminedImage:
    """Everything that is drawn of an image.

    Attributes:
        before: (C, H, W) pixels of the original in [0, 1], at the size of the model's input.
        named: Label that the model predicts for the original.
        after: (C, H, W) pixels of the purified copy in [0, 1]; None if the image was not purified.
            Only adversarial images are, because purification removes no other problem.
        named_after: Label that the model predicts for the purified copy; None if there is none.
        evidence: Evidence of the detector for its verdict.
    """

    before: Tensor
    named: str | None
    after: Tensor | None
    named_after: str | None
    evidence: Evidence

    def html(self) -> str:
        """Return the image, its purified copy, and the detector's evidence as HTML."""
        return _html(self)


def examine_image(
    workflow: ImageWorkflow,
    image: Image,
    evidence: Evidence,
    purifier: Purifier | None,
    seconds: float,  # noqa: ARG001
) -> ExaminedImage:
    """Examine an image, and purify it if there is a purifier.

    Args:
        workflow: Model and seed of the run.
        image: Image.
        evidence: Evidence of the detector for its verdict.
        purifier: Purifier to apply; None does not purify.
        seconds: Has no meaning for images.
    """
    seen = replace(workflow, judge=None)
    after = None if purifier is None else seen.make(purifier, image).raw
    return ExaminedImage(
        before=image.pixels,
        named=seen.assess(image).label,
        after=after,
        named_after=None if after is None else seen.assess(replace(image, pixels=after)).label,
        evidence=evidence,
    )


def _html(examined: ExaminedImage) -> str:
    text = f"Shown at the size of the model's input. The model predicts {examined.named}. "
    if examined.after is not None:
        same = examined.named_after == examined.named
        text += f"For the purified copy it predicts {'the same' if same else examined.named_after}."
    return section("Look", text, _sights(examined)) + evidence_html(examined.evidence, Images.words)


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
