"""Recordings and pictures, as a screening takes them."""

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
from nip_audio.screening.measure import facts_of, measure, measure_picture
from nip_audio.screening.measured import (
    FileFacts,
    Measurement,
    PictureFacts,
    PictureMeasurement,
)
from nip_audio.screening.reading import Kind
from nip_audio.screening.words import PICTURES, RECORDINGS, Words

__all__ = ["Pictures", "Recordings", "adapter_of_json", "kind_of"]

_SHAPE = ("channels", "height", "width")


@dataclass(frozen=True)
class Recordings:
    """Recordings; a kind.

    Attributes:
        settings: How they are read.
    """

    settings: ReadSettings

    @property
    def words(self) -> Words:
        """What they are called."""
        return RECORDINGS

    @property
    def likenesses(self) -> bool:
        """Copies are known by how their samples correlate, whatever was done to them."""
        return True

    @property
    def suffixes(self) -> frozenset[str]:
        """File name endings of audio."""
        return WaveformAdapter().suffixes

    def read(self, file: Recording) -> Audio:
        """Read one; see ``Recording.read``."""
        return file.read(self.settings)

    def facts(self, item: Audio) -> FileFacts:
        """See ``facts_of``."""
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
        """See ``measure``."""
        return measure(pretrained, item, config, names=names, seed=seed)

    def to_json(self) -> dict[str, Any]:
        """Return the settings."""
        return asdict(self.settings)


@dataclass(frozen=True)
class Pictures:
    """Pictures, of one shape once they are read; a kind.

    Of the copies only exact ones are known, those whose pixels are equal as the model takes them:
    small pictures of one kind of thing correlate whether they are copies or not.

    Attributes:
        adapter: How they are read.
    """

    adapter: ImageAdapter

    @property
    def words(self) -> Words:
        """What they are called."""
        return PICTURES

    @property
    def likenesses(self) -> bool:
        """Only exact copies are known; see the class."""
        return False

    @property
    def suffixes(self) -> frozenset[str]:
        """File name endings of pictures."""
        return self.adapter.suffixes

    def read(self, file: Recording) -> Image:
        """Read one; see ``ImageAdapter.read``."""
        return self.adapter.read(file)

    def facts(self, item: Image) -> PictureFacts:
        """Return what is known of a picture's file."""
        height, width = item.original_size
        scales = (height / self.adapter.height, width / self.adapter.width)
        return PictureFacts(
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
    ) -> PictureMeasurement:
        """See ``measure_picture``; there is no evidence but of the name."""
        return measure_picture(pretrained, item, config, seed=seed)

    def to_json(self) -> dict[str, Any]:
        """Return the shape."""
        return {name: getattr(self.adapter, name) for name in _SHAPE}


def kind_of(adapter: WaveformAdapter | ImageAdapter) -> Kind:
    """Return the kind of files that an adapter reads."""
    return Pictures(adapter) if isinstance(adapter, ImageAdapter) else Recordings(adapter.settings)


def adapter_of_json(read: Mapping[str, Any]) -> WaveformAdapter | ImageAdapter:
    """Return what reads files as ``Kind.to_json`` says.

    Raises:
        TypeError: If it says nothing that a kind would.
    """
    if set(read) == set(_SHAPE):
        return ImageAdapter(**read)
    return WaveformAdapter(ReadSettings(**read))
