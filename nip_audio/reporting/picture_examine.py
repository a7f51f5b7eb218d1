"""Examine one flagged image again: original, purified copy, and evidence for the verdict."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nip_audio.audio.manifest import Recording
from nip_audio.core.adapter import Batch
from nip_audio.errors import ImageError
from nip_audio.image.adapter import Image, ImageAdapter, to_8_bits
from nip_audio.models.pretrained import PretrainedModel
from nip_audio.purifiers.base import Purifier
from nip_audio.reporting.evidence import Evidence, require_unchanged
from nip_audio.screening.judge import Judge
from nip_audio.screening.measure import measure_image, noise_generator
from nip_audio.screening.records import ScreenRecord
from nip_audio.workflows.flagged import PURIFIED

__all__ = ["ExaminedImage", "ImageExaminer"]


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
    named: str
    after: Tensor | None
    named_after: str | None
    evidence: Evidence


@dataclass(frozen=True)
class ImageExaminer:
    """Examines images again, with the model and settings of a run.

    Attributes:
        pretrained: Model of the run.
        adapter: Reader of the run's images.
        seed: Seed of the run's noise generator.
        judge: Judge of the run; None if its calibration is not available.
        purifier: Purifier of the model; None if it has none.
    """

    pretrained: PretrainedModel
    adapter: ImageAdapter
    seed: int = 0
    judge: Judge | None = None
    purifier: Purifier | None = None

    def examine(self, record: ScreenRecord, file: Recording) -> ExaminedImage:
        """Read one image again and examine it.

        Args:
            record: Record of the image in the run.
            file: Image file to read.

        Raises:
            ImageError: If the file cannot be read any more, or was changed since the screening.
        """
        picture = self.adapter.read(file)
        require_unchanged(record, picture.sha256, file.path, ImageError)
        after = None
        if self.purifier is not None and record.verdict in PURIFIED:
            after = self._purified(self.purifier, picture)
        return ExaminedImage(
            before=picture.pixels,
            named=self._named(picture.pixels),
            after=after,
            named_after=None if after is None else self._named(after),
            evidence=self._evidence(picture),
        )

    @torch.no_grad()
    def _purified(self, purifier: Purifier, picture: Image) -> Tensor:
        generator = noise_generator(self.seed, picture.content_sha256)
        return to_8_bits(purifier.purify(Batch(picture.pixels[None]), generator=generator).x[0])

    def _named(self, pixels: Tensor) -> str:
        return self.pretrained.card.labels[int(self.pretrained.model.predict(Batch(pixels[None])))]

    def _evidence(self, picture: Image) -> Evidence:
        if self.judge is None:
            return Evidence()
        known = self.judge.calibration
        measured = measure_image(self.pretrained, picture, known.config, seed=self.seed)
        return Evidence.of(known, measured)
