"""Look at one flagged picture again: as it is, purified, and what the verdict rests on."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nip_audio.audio.manifest import Recording
from nip_audio.core.adapter import Batch
from nip_audio.errors import ImageError
from nip_audio.image.adapter import Image, ImageAdapter, to_8_bits
from nip_audio.models.pretrained import PretrainedModel
from nip_audio.purification.flagged import PURIFIED
from nip_audio.purifiers.base import Purifier
from nip_audio.reporting.evidence import Evidence, require_unchanged
from nip_audio.screening.judge import Judge
from nip_audio.screening.measure import measure_picture, noise_generator
from nip_audio.screening.records import ScreenRecord

__all__ = ["ExaminedPicture", "PictureExaminer"]


@dataclass(frozen=True)
class ExaminedPicture:
    """Everything that is drawn of a picture.

    Attributes:
        before: (C, H, W) in [0, 1], as the model takes it.
        named: What the model names it.
        after: Its purified copy, likewise; None if it was not purified, which mends no other flaw
            than an attack.
        named_after: What the model names that; None likewise.
        evidence: What the verdict rests on.
    """

    before: Tensor
    named: str
    after: Tensor | None
    named_after: str | None
    evidence: Evidence


@dataclass(frozen=True)
class PictureExaminer:
    """Model and settings with which pictures are looked at again.

    Attributes:
        pretrained: The run's model.
        adapter: How the run reads pictures.
        seed: The run's.
        judge: The run's calibration; None if it is not at hand.
        purifier: That of the model; None if it has none.
    """

    pretrained: PretrainedModel
    adapter: ImageAdapter
    seed: int = 0
    judge: Judge | None = None
    purifier: Purifier | None = None

    def examine(self, record: ScreenRecord, file: Recording) -> ExaminedPicture:
        """Read one picture again and look at it.

        Args:
            record: What the run says of it.
            file: Where it lies.

        Raises:
            ImageError: If it cannot be read any more, or is not what was screened.
        """
        picture = self.adapter.read(file)
        require_unchanged(record, picture.sha256, file.path, ImageError)
        after = None
        if self.purifier is not None and record.verdict in PURIFIED:
            after = self._purified(self.purifier, picture)
        return ExaminedPicture(
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
        measured = measure_picture(self.pretrained, picture, known.config, seed=self.seed)
        return Evidence.of(known, measured)
