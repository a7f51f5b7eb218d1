"""Attack and purify images; the PNG that is written is what is judged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from nip_audio.core.adapter import Batch
from nip_audio.core.modality import FileContent
from nip_audio.errors import InputError
from nip_audio.image.adapter import Image, ImageAdapter, to_8_bits
from nip_audio.purifiers.base import Purifier
from nip_audio.workflows.files import (
    Assessment,
    AttackRun,
    PlannedFile,
    Purified,
    Workflow,
    rounded,
)

__all__ = ["ChangedImage", "ImageWorkflow"]


@dataclass(frozen=True)
class ChangedImage:
    """An image that was attacked or purified, as described in its JSON sidecar.

    Attributes:
        source: Path of the image that was read.
        source_sha256: SHA-256 of its bytes.
        written: Path of the PNG that was written, which has the model's size.
        written_sha256: SHA-256 of the bytes of the written PNG.
        by: Name and settings of the attack or purifier.
        aim: Goal of the attacker in words; empty for a purifier.
        named_before: Prediction of the model for the original image.
        named_after: Prediction of the model for the *written file*.
        succeeded: Whether the written file reaches the attacker's goal; None for a purifier.
        linf: Largest absolute change of a pixel value, in [0, 1].
        l2: L2 norm of the change.
        changes: Conversions that were made when the image was read.
        seed: Seed of all random draws.
        model_id: Identity of the model.
    """

    source: str
    source_sha256: str
    written: str
    written_sha256: str
    by: dict[str, Any]
    aim: str
    named_before: str
    named_after: str
    succeeded: bool | None
    linf: float
    l2: float
    changes: tuple[str, ...]
    seed: int
    model_id: str

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values, rounded to 6 digits."""
        return rounded({**vars(self), "changes": list(self.changes)})

    @property
    def line(self) -> str:
        """Outcome in one line of text."""
        verdict = ""
        if self.succeeded is not None:
            verdict = "; fools the model" if self.succeeded else "; does not fool the model"
        return (
            f"{self.written}: prediction {self.named_before} → {self.named_after} (largest change "
            f"{self.linf:.4f}{verdict})"
        )


@dataclass(frozen=True)
class ImageWorkflow(Workflow):
    """What attacks and purifiers do with images."""

    start_bits: ClassVar[int] = 63

    reader: ImageAdapter

    def attacked(self, run: AttackRun) -> ChangedImage:
        """Describe an attack by its written file."""
        target = run.goal.target
        aim = "named as anything else" if target is None else f"named as {target}"
        succeeded = bool(run.objective.succeeded(Batch(run.written.pixels[None]))[0])
        return self._changed(
            run.source, run.out, run.item, run.written, by=run.attack, aim=aim, succeeded=succeeded
        )

    def make(self, purifier: Purifier, item: FileContent) -> Purified:
        """Purify one image; the pixels are rounded to the values of an 8-bit file."""
        return Purified(to_8_bits(super().make(purifier, item).raw))

    def purified(
        self,
        settings: Mapping[str, Any],
        planned: PlannedFile,
        item: Image,
        before: Assessment,  # noqa: ARG002
        made: Purified,  # noqa: ARG002
    ) -> ChangedImage:
        """Describe a purified image by its written file."""
        written = self.reader.read_back(planned.written)
        return self._changed(planned.source, planned.written, item, written, by=dict(settings))

    def plot(self, done: ChangedImage, *, force: bool = False) -> None:  # noqa: ARG002
        """Refuse to draw.

        Raises:
            InputError: Always.
        """
        raise InputError(
            f"{done.written} is an image, and plots show recordings; leave the plot out"
        )

    def _changed(
        self,
        source: Path | str,
        out: Path,
        image: Image,
        written: Image,
        *,
        by: dict[str, Any],
        aim: str = "",
        succeeded: bool | None = None,
    ) -> ChangedImage:
        before, after = self._named(torch.stack([image.pixels, written.pixels]))
        change = (written.pixels - image.pixels).flatten()
        return ChangedImage(
            source=str(source),
            source_sha256=image.sha256,
            written=str(out),
            written_sha256=written.sha256,
            by=by,
            aim=aim,
            named_before=before,
            named_after=after,
            succeeded=succeeded,
            linf=float(change.abs().max()),
            l2=float(change.norm()),
            changes=image.changes,
            seed=self.seed,
            model_id=self.pretrained.model_id,
        )

    def _named(self, pixels: Tensor) -> list[str]:
        card = self.pretrained.card
        return [card.labels[int(i)] for i in self.pretrained.model.predict(Batch(pixels))]
