"""Read and write audio, compute spectrograms, and adapt audio to the core."""

from nip_audio.audio.modality import MODALITY

__all__ = ["MODALITY"]
