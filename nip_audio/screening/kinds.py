"""Tell a screening how recordings and images are read, measured and described."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from nip_audio.audio.adapter import WaveformAdapter
from nip_audio.audio.io import Audio, ReadSettings
from nip_audio.audio.manifest import Recording
from nip_audio.core.nccr import NccrConfig
from nip_audio.image.adapter import Image, ImageAdapter
from nip_audio.models.pretrained import PretrainedModel
from nip_audio.screening.measure import facts_of, measure, measure_image
from nip_audio.screening.measured import (
    FileFacts,
    ImageFacts,
    ImageMeasurement,
    Measurement,
)
from nip_audio.screening.reading import Kind
from nip_audio.screening.words import IMAGES, RECORDINGS, Words

__all__ = ["Images", "Recordings", "adapter_of_json", "kind_of"]

_SHAPE = ("channels", "height", "width")


@dataclass(frozen=True)
class Recordings:
    """How a screening reads and measures recordings.

    Attributes:
        settings: Settings of the audio reader.
    """

    settings: ReadSettings

    @property
    def words(self) -> Words:
        """Words for recordings."""
        return RECORDINGS

    @property
    def finds_altered_copies(self) -> bool:
        """True: altered copies are found by the correlation of their samples."""
        return True

    @property
    def suffixes(self) -> frozenset[str]:
        """File name endings of audio files."""
        return WaveformAdapter().suffixes

    def read(self, file: Recording) -> Audio:
        """Read one recording.

        Raises:
            AudioError: If it cannot be used.
        """
        return file.read(self.settings)

    def facts(self, item: Audio) -> FileFacts:
        """Return what is known about a recording without the model."""
        return facts_of(item)

    def measure(
        self,
        pretrained: PretrainedModel,
        item: Audio,
        config: NccrConfig,
        *,
        names: bool,
        seed: int,
    ) -> Measurement:
        """Measure one recording; equal content and seed give equal results."""
        return measure(pretrained, item, config, names=names, seed=seed)

    def to_json(self) -> dict[str, Any]:
        """Return the settings of the audio reader."""
        return asdict(self.settings)


@dataclass(frozen=True)
class Images:
    """How a screening reads and measures images; all are brought to one shape.

    Only exact copies are found, whose pixels are equal at the model's input size: small images of
    the same class correlate whether they are copies or not.

    Attributes:
        adapter: Reader of the images.
    """

    adapter: ImageAdapter

    @property
    def words(self) -> Words:
        """Words for images."""
        return IMAGES

    @property
    def finds_altered_copies(self) -> bool:
        """False: only exact copies of an image are found."""
        return False

    @property
    def suffixes(self) -> frozenset[str]:
        """File name endings of image files."""
        return self.adapter.suffixes

    def read(self, file: Recording) -> Image:
        """Read one image.

        Raises:
            ImageError: If it cannot be used.
        """
        return self.adapter.read(file)

    def facts(self, item: Image) -> ImageFacts:
        """Return what is known about an image without the model."""
        height, width = item.original_size
        scales = (height / self.adapter.height, width / self.adapter.width)
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

    def measure(
        self,
        pretrained: PretrainedModel,
        item: Image,
        config: NccrConfig,
        *,
        names: bool,
        seed: int,
    ) -> ImageMeasurement:
        """Measure one image; ``names`` is ignored, the evidence is always about the label."""
        return measure_image(pretrained, item, config, seed=seed)

    def to_json(self) -> dict[str, Any]:
        """Return the shape that images are brought to."""
        return {name: getattr(self.adapter, name) for name in _SHAPE}


def kind_of(adapter: WaveformAdapter | ImageAdapter) -> Kind:
    """Return how a screening treats the files that an adapter reads."""
    return Images(adapter) if isinstance(adapter, ImageAdapter) else Recordings(adapter.settings)


def adapter_of_json(read: Mapping[str, Any]) -> WaveformAdapter | ImageAdapter:
    """Make an adapter from the values that ``Kind.to_json`` returned.

    Raises:
        TypeError: If they are other values.
    """
    if set(read) == set(_SHAPE):
        return ImageAdapter(**read)
    return WaveformAdapter(ReadSettings(**read))
