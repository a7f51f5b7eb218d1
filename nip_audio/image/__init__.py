"""Read, write and classify images: everything that differs from audio."""

from nip_audio.image.modality import MODALITY

__all__ = ["MODALITY"]
