"""Images as a modality: everything in which they differ from other files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from nip_audio.core.adapter import Bounds
from nip_audio.core.modality import Card, Endings, TriggerPlan
from nip_audio.core.noise import Noise
from nip_audio.errors import FileError, ImageError, InputError
from nip_audio.image.adapter import IMAGE_SUFFIXES, ImageAdapter

__all__ = ["IMAGE_NOISES", "MODALITY", "ImageModality"]

IMAGE_NOISES = (
    *(Noise("gaussian", "input", scale) for scale in (0.01, 0.03, 0.1, 0.25)),
    *(Noise("mask", "input", share, 1) for share in (0.03, 0.15)),
)
"""White noise, and single values set to the lower bound, which reveal JSMA (the Jacobian-based
saliency map attack)."""

_READING = frozenset({"--max-duration", "--channel"})


@dataclass(frozen=True)
class ImageModality:
    """Images; see ``nip_audio.core.modality.Modality``."""

    name: ClassVar[str] = "image"
    error: ClassVar[type[FileError]] = ImageError
    plural: ClassVar[str] = "images"
    expected: ClassVar[str] = "no image in {}, expected png, jpg, bmp, ppm or webp"
    suffixes: ClassVar[frozenset[str]] = IMAGE_SUFFIXES
    bounds: ClassVar[Bounds] = Bounds(0.0, 1.0)
    parts: ClassVar[tuple[str, ...]] = ("embedding_model",)
    noises: ClassVar[tuple[Noise, ...]] = IMAGE_NOISES
    # the second-to-last tap, mostly the one before the pooling, and the tap before it
    # (docs/results/images.md)
    trigger_plan: ClassVar[TriggerPlan] = TriggerPlan(slice(-2, -1), slice(-3, -2))
    default_eps: ClassVar[float] = 8 / 255
    attack_level: ClassVar[Literal["raw", "input"]] = "input"
    default_goal: ClassVar[str] = "misidentify"
    attacked: ClassVar[Endings] = Endings(".png")
    purified: ClassVar[Endings] = Endings(".png")
    folder_is_group: ClassVar[bool] = False
    missing_options: ClassVar[Mapping[str, frozenset[str]]] = {
        "attack": _READING
        | {"--enrolment", "--speaker", "--threshold", "--goal", "--calibration", "--probe"}
        | {"--estimate-threshold"},
        "backdoor": _READING,
        "calibrate": _READING | {"--tolerate-noise", "--names or --no-names", "--speaker-from"},
        "detect": _READING,
        "fit-purifier": _READING | {"--set snr_db", "--set crop_s"},
        "identify": _READING
        | {"--enrolment", "--threshold", "--plda", "--calibration", "--threshold-file"},
        "purify": _READING | {"--calibration", "--fpr", "--only-flagged", "--plot"},
        "report": frozenset({"--seconds"}),
        "robustness": _READING,
        "screen": _READING | {"--speaker-from", "--threshold-file"},
    }

    def channels(self, card: Card) -> int:
        """Return the number of channels of a model's images."""
        return int(card.data["image_shape"][0])

    def reader(
        self, card: Card, *, max_duration_s: float | None = None, channel: int | None = None
    ) -> ImageAdapter:
        """Return how images are brought to the shape of a model.

        Raises:
            InputError: If a duration or a channel is given.
        """
        if max_duration_s is not None or channel is not None:
            raise InputError(
                f"{card.name} takes images and got a longest duration or a channel, expected none; "
                "leave it out"
            )
        return ImageAdapter(*(int(n) for n in card.data["image_shape"]))

    def reader_of_json(self, settings: Mapping[str, Any]) -> ImageAdapter:
        """Return the reader with these settings.

        Raises:
            TypeError: If they are not the shape of images.
        """
        if set(settings) != set(ImageAdapter().to_json()):
            raise TypeError(f"{sorted(settings)} is not the shape of images")
        return ImageAdapter(**settings)

    def listed(
        self,
        source: Path,
        data_root: str | None,
        *,
        follow_links: bool,  # noqa: ARG002
    ) -> None:
        """Return None for a folder; images have no manifest.

        Raises:
            InputError: If it is no folder, or a data root is given.
        """
        if data_root is not None or not source.is_dir():
            raise InputError(
                f"images come as a folder, got {source}"
                f"{'' if data_root is None else ' and `data_root`'}; pass the folder that holds "
                "them"
            )

    def require_same_input(self, first: Card, other: Card, *, level: str) -> None:  # noqa: ARG002
        """Refuse models of two shapes.

        Raises:
            InputError: If their shapes differ.
        """
        shapes = [tuple(card.data["image_shape"]) for card in (first, other)]
        if shapes[0] != shapes[1]:
            own, others = (" × ".join(map(str, shape)) for shape in shapes)
            raise InputError(
                f"{first.name} takes images of {own}, {other.name} of {others}: they do not see "
                "the same noise; compare models of one shape"
            )


MODALITY = ImageModality()
"""How images are read, described and written."""
