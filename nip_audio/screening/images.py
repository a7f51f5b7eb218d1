"""Screen images: measure them, judge them and say in words what was found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from nip_audio.core.finite import require_finite
from nip_audio.core.modality import Modality
from nip_audio.errors import InputError
from nip_audio.image import MODALITY
from nip_audio.image.adapter import Image, ImageAdapter
from nip_audio.models.pretrained import PretrainedModel
from nip_audio.screening.calibration import Calibration
from nip_audio.screening.details import ImageDetails
from nip_audio.screening.kind import Kind, Words
from nip_audio.screening.measure import measure_evidence, require_names
from nip_audio.screening.measured import ImageFacts, ImageMeasurement
from nip_audio.screening.probes import Probe
from nip_audio.screening.records import Finding

if TYPE_CHECKING:
    from nip_audio.detectors.density import CleanDensity

__all__ = ["Images"]

LEAST_SCALE = 0.6
"""Smallest size of an image as a share of the model's input, or of the smallest calibration image
if that is smaller. A smaller image was enlarged so much that fine detail is missing. Clean images
of .6 and more are called adversarial no more often than others, those of .4 in a tenth of the cases
(docs/results/images.md)."""

MOST_STRETCH = 2.0
"""An image that was scaled by a larger ratio than this in one direction than in the other is
distorted."""

_WORDS = Words(
    clean="images",
    raw="image",
    input="image",
    same="the same image as",
    same_by="correlation of the pixels",
    many="many kinds of images",
    group="folder",
    groups="folders",
    warning="these images are unlike the images that the detector was calibrated on, so single "
    "verdicts mean little: {outside} of {judged} are out of domain, and {unusual} respond to noise "
    "as at most 5 % of clean images do. Either most are attacked, or they are another kind of "
    "image (camera, size, compression, things that the model was not trained on). Calibrate on "
    "clean images of your own: nip-audio calibrate CLEAN_DIR --model MODEL --out my.calibration, "
    "then screen with --calibration my.calibration",
    remedies={
        "adversarial": "do not use it; look at it and get the original image; nip-audio purify "
        "writes a purified copy to compare with",
        "poisoned": "keep it out of training; look at it and find out where it came from",
        "duplicate": "find out what it shows and keep it in that folder only",
        "out_of_domain": "get the original image, or calibrate on clean images like this one "
        "(nip-audio calibrate CLEAN_DIR --model MODEL) and screen again",
    },
)


@dataclass(frozen=True)
class Images(Kind):
    """How a screening measures and judges images.

    All images are brought to one shape. Only exact copies are found, whose pixels are equal at the
    model's input size: small images of the same class correlate whether they are copies or not.
    """

    modality: ClassVar[Modality] = MODALITY
    words: ClassVar[Words] = _WORDS
    details: ClassVar[type[ImageDetails]] = ImageDetails

    reader: ImageAdapter

    def facts(self, item: Image) -> ImageFacts:
        """Return what is known about an image without the model."""
        height, width = item.original_size
        scales = (height / self.reader.height, width / self.reader.width)
        return ImageFacts(
            height=height,
            width=width,
            scale=min(scales),
            stretch=max(scales) / min(scales),
            encoding=item.encoding,
            sha256=item.sha256,
            content_sha256=item.content_sha256,
            changes=item.changes,
        )

    @torch.no_grad()
    def measure(
        self,
        pretrained: PretrainedModel,
        item: Image,
        probe: Probe,
        *,
        seed: int,
    ) -> ImageMeasurement:
        """Measure one image; the evidence is always about the label.

        Raises:
            InputError: If the model has no classifier.
        """
        require_names(pretrained)
        model = pretrained.model
        result, evidence = measure_evidence(model, item, probe.config, seed)
        named = int(model.score_embeddings(result.embedding[None])[0].argmax())
        return ImageMeasurement(evidence, model.labels[named])

    @classmethod
    def new_detector(cls) -> CleanDensity:
        """Return a detector that is not fitted yet."""
        from nip_audio.detectors.density import CleanDensity  # needs scikit-learn

        return CleanDensity()

    @classmethod
    def names(cls, pretrained: PretrainedModel, asked: bool | None) -> bool:
        """Return True: the evidence is always about the predicted label.

        Raises:
            InputError: If the model has no classifier, or ``asked`` is False.
        """
        require_names(pretrained)
        if asked is False:
            raise InputError(
                "evidence about the embedding is asked for, expected evidence about the label: "
                "images have no voices; leave names out"
            )
        return True

    def reference(
        self,
        owners: Sequence[str],  # noqa: ARG002
        facts: Sequence[ImageFacts],
        measured: Sequence[ImageMeasurement],  # noqa: ARG002
        *,
        folds: int,  # noqa: ARG002
    ) -> Mapping[str, Any]:
        """Return the size of the smallest clean image."""
        return {"sample_rate_hz": None, "scale": min(one.scale for one in facts)}

    @classmethod
    def details_of(
        cls,
        facts: ImageFacts,
        measured: ImageMeasurement,
        calibration: Calibration,  # noqa: ARG003
    ) -> ImageDetails:
        """Return the details of an image's record."""
        return ImageDetails(measured.named, facts.height, facts.width)

    @classmethod
    def outside(
        cls,
        details: ImageDetails,  # noqa: ARG003
        facts: ImageFacts,
        calibration: Calibration,
    ) -> list[Finding]:
        """Return whether an image is too small or was distorted."""
        require_finite(scale=facts.scale, least_scale=calibration.scale, stretch=facts.stretch)
        size, found = f"{facts.width} × {facts.height} pixels", []
        if facts.scale < LEAST_SCALE * min(1.0, calibration.scale):
            found.append(
                f"it has only {size} and was enlarged {1 / facts.scale:.1f} times for the model, "
                "so fine detail is missing; the detector is not calibrated for such images"
            )
        if facts.stretch > MOST_STRETCH:
            found.append(
                f"it has {size} and was distorted for the model: one direction was scaled "
                f"{facts.stretch:.1f} times as much as the other, and the detector is not "
                "calibrated for such images"
            )
        return [Finding.of("out_of_domain", why, cls.words.remedies) for why in found]
