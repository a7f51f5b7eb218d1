"""Front ends for models of any origin: waveforms to bounded spectrograms, inside the graph.

A network that was trained on decibels, power or natural logarithms of its own is wrapped so that
its input lies in [0, 1] all the same: the front end maps decibels to [0, 1] over a range that
speech does not leave, and the network begins by mapping them back. Purifiers, noises and attacks on
the spectrogram then work on every model alike. A network that takes waveforms gets
``ComplexSpectrogram``, which can be inverted exactly.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from nip_audio.core.adapter import length_mask
from nip_audio.errors import InputError

__all__ = [
    "BandFrontEnd",
    "BandRange",
    "ComplexSpectrogram",
    "Framing",
    "MelBands",
    "SpectralFrontEnd",
    "levels_of",
]


@dataclass(frozen=True)
class Framing:
    """How a front end cuts waveforms into frames, and where its bands lie.

    Attributes:
        n_fft: Size of the Fourier transform.
        hop_samples: Step between frames.
        window: (W,) analysis window, W ≤ ``n_fft``.
        first_centre: Sample at the centre of the first frame; 0 if the waveform is padded.
        band_centres_hz: (F,) centre frequencies of the bands, rising.
        range_db: Decibels between 0 and 1 of a spectrogram.
        pad_mode: Mode of ``torch.stft`` in which the ends of the waveform are padded for
            resynthesis.
    """

    n_fft: int
    hop_samples: int
    window: Tensor
    first_centre: int
    band_centres_hz: Tensor
    range_db: float
    pad_mode: str = "constant"


@runtime_checkable
class SpectralFrontEnd(Protocol):
    """A front end whose spectrograms are levels of bands, so that a change is a gain."""

    sample_rate_hz: int

    @property
    def framing(self) -> Framing:
        """Frames and bands."""
        ...

    def frames(self, samples: Tensor) -> Tensor:
        """Return the number of frames of (B,) numbers of samples."""
        ...

    def __call__(self, wavs: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Compute (B, F, T) spectrograms and (B,) numbers of frames."""
        ...


@dataclass(frozen=True)
class BandRange:
    """The decibels that are mapped to 0 and to 1.

    Attributes:
        low_db: Level mapped to 0.
        high_db: Level mapped to 1.

    Raises:
        InputError: If the range is empty.
    """

    low_db: float
    high_db: float

    def __post_init__(self) -> None:
        """Refuse an empty range."""
        if not self.high_db > self.low_db:
            raise InputError(
                f"high_db is {self.high_db}, expected a level above low_db = {self.low_db}"
            )

    @property
    def width_db(self) -> float:
        """Number of decibels from 0 to 1."""
        return self.high_db - self.low_db

    def to_unit(self, decibels: Tensor) -> Tensor:
        """Map decibels to [0, 1], and clip what lies outside."""
        return ((decibels - self.low_db) / self.width_db).clamp(0.0, 1.0)

    def to_decibels(self, x: Tensor) -> Tensor:
        """Map [0, 1] back to decibels."""
        return x * self.width_db + self.low_db


class BandFrontEnd(nn.Module, ABC):
    """Waveforms to levels of frequency bands in [0, 1]: (B, N) → (B, F, T).

    A subclass computes ``decibels`` and ``frames`` and describes its ``framing``. Padding is zeroed
    before the analysis, and frames beyond the valid ones are zero.

    Args:
        sample_rate_hz: Sample rate of the waveforms.
        band_range: Decibels that are mapped to 0 and 1.
    """

    def __init__(self, sample_rate_hz: int, band_range: BandRange) -> None:
        super().__init__()
        self.sample_rate_hz = sample_rate_hz
        self.band_range = band_range

    @property
    @abstractmethod
    def framing(self) -> Framing:
        """Frames and bands."""

    @abstractmethod
    def decibels(self, wavs: Tensor, lengths: Tensor) -> Tensor:
        """Return the levels (B, F, T) of waveforms (B, N) in decibels."""

    @abstractmethod
    def frames(self, samples: Tensor) -> Tensor:
        """Return the number of frames of (B,) numbers of samples."""

    def forward(self, wavs: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Compute the spectrograms of a batch.

        Args:
            wavs: (B, N) floating waveforms in [-1, 1].
            lengths: (B,) number of valid samples; None means all N.

        Returns:
            Spectrograms (B, F, T) in [0, 1], zero beyond the valid frames, and the number of valid
            frames (B,).

        Raises:
            InputError: If ``wavs`` is not (B, N) with N ≥ 1, or an item has no whole frame.
        """
        wavs, lengths = _masked(wavs, lengths)
        frames = self.frames(lengths)
        if int(frames.min()) < 1:
            raise InputError(
                f"an item has {int(lengths.min())} samples, expected at least one frame of "
                f"{len(self.framing.window)}; pass longer audio"
            )
        x = self.band_range.to_unit(self.decibels(wavs, lengths))
        frames = frames.clamp(max=x.shape[2])
        return x * length_mask(frames, x.shape[2])[:, None, :], frames


class MelBands(BandFrontEnd):
    """Power in mel bands: the analysis of librosa's ``melspectrogram``, differentiable.

    Args:
        filters: (F, n_fft // 2 + 1) weights of the bands.
        band_centres_hz: (F,) centre frequencies of the bands.
        window: (W,) analysis window, W ≤ ``n_fft``; it is centred in the transform.
        sample_rate_hz: Sample rate of the waveforms.
        n_fft: Size of the Fourier transform.
        hop_samples: Step between frames.
        centred: Whether the waveform is padded with zeros so that frames are centred at multiples
            of the step; if not, only whole frames count.
        floor: Power that stands for silence; smaller values are raised to it.
        added: Whether the floor is added to the power, and not the power raised to it.
        band_range: Decibels of power that are mapped to 0 and 1.
        level_dbfs: Volume to which quieter waveforms are raised first, in decibels relative to full
            scale; None leaves the volume.
    """

    filters: Tensor
    window: Tensor
    band_centres_hz: Tensor

    def __init__(
        self,
        filters: Tensor,
        band_centres_hz: Tensor,
        window: Tensor,
        *,
        sample_rate_hz: int,
        n_fft: int,
        hop_samples: int,
        centred: bool,
        floor: float,
        band_range: BandRange,
        added: bool = False,
        level_dbfs: float | None = None,
    ) -> None:
        super().__init__(sample_rate_hz, band_range)
        self.register_buffer("filters", filters.float(), persistent=False)
        self.register_buffer("window", window.float(), persistent=False)
        self.register_buffer("band_centres_hz", band_centres_hz.float(), persistent=False)
        self.n_fft = n_fft
        self.hop_samples = hop_samples
        self.centred = centred
        self.floor = floor
        self.added = added
        self.level_dbfs = level_dbfs

    @property
    def framing(self) -> Framing:
        """Frames and bands."""
        first = 0 if self.centred else self.n_fft // 2
        return Framing(
            self.n_fft,
            self.hop_samples,
            self.window,
            first,
            self.band_centres_hz,
            self.band_range.width_db,
        )

    def frames(self, samples: Tensor) -> Tensor:
        """Return the number of frames of (B,) numbers of samples."""
        whole = samples if self.centred else samples - self.n_fft
        return 1 + torch.div(whole, self.hop_samples, rounding_mode="floor")

    def decibels(self, wavs: Tensor, lengths: Tensor) -> Tensor:
        """Return the power of the bands (B, F, T) in decibels."""
        if self.level_dbfs is not None:
            wavs = _raised(wavs, lengths, self.level_dbfs)
        spectrum = torch.stft(
            wavs,
            n_fft=self.n_fft,
            hop_length=self.hop_samples,
            win_length=len(self.window),
            window=self.window.to(wavs),
            center=self.centred,
            pad_mode="constant",
            return_complex=True,
        )
        power = self.filters.to(wavs) @ (spectrum.real.square() + spectrum.imag.square())
        power = power + self.floor if self.added else power.clamp_min(self.floor)
        return 10 * torch.log10(power)


class ComplexSpectrogram(nn.Module):
    """Waveforms to complex spectra in [0, 1] that can be inverted: (B, N) → (B, 2, F, T).

    For networks that take waveforms. The two channels are the real and the imaginary part of a
    short-time spectrum whose magnitude m is compressed to log(1 + m / ``SMALL``), so that quiet and
    loud parts have changes of like size. Waveforms are padded with zeros to whole steps.

    Args:
        sample_rate_hz: Sample rate of the waveforms.
        n_fft: Size of the window and of the transform.
        hop_samples: Step between frames, which divides ``n_fft``.

    Raises:
        InputError: If the step does not divide the window.

    Example:
        >>> front_end = ComplexSpectrogram()
        >>> wavs = 0.1 * torch.sin(torch.arange(1280.0))[None]
        >>> x, frames = front_end(wavs)
        >>> bool((front_end.inverse(x) - wavs).abs().max() < 1e-5)
        True
    """

    SMALL = 0.01
    LEVELS_DB = 100.0
    window: Tensor

    def __init__(
        self, sample_rate_hz: int = 16000, *, n_fft: int = 512, hop_samples: int = 128
    ) -> None:
        super().__init__()
        if n_fft % hop_samples:
            raise InputError(f"hop_samples is {hop_samples}, expected a divisor of {n_fft}")
        self.sample_rate_hz = sample_rate_hz
        self.n_fft = n_fft
        self.hop_samples = hop_samples
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)
        # the largest magnitude of a waveform in [-1, 1] is the sum of the window
        self.largest = float(torch.log1p(self.window.double().sum() / self.SMALL))

    def forward(self, wavs: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Compute the spectra of a batch.

        Args:
            wavs: (B, N) floating waveforms in [-1, 1].
            lengths: (B,) number of valid samples; None means all N.

        Returns:
            Spectra (B, 2, F, T) in [0, 1], of which 0.5 is zero, and the valid frames (B,).

        Raises:
            InputError: If ``wavs`` is not (B, N) with N ≥ 1.
        """
        wavs, lengths = _masked(wavs, lengths)
        wavs = nn.functional.pad(wavs, (0, -wavs.shape[1] % self.hop_samples))
        spectrum = torch.stft(
            wavs,
            n_fft=self.n_fft,
            hop_length=self.hop_samples,
            window=self.window.to(wavs),
            center=True,
            pad_mode="constant",
            return_complex=True,
        )
        parts = torch.stack([spectrum.real, spectrum.imag], dim=1)
        size = parts.square().sum(dim=1, keepdim=True).clamp_min(1e-16).sqrt()
        x = 0.5 + parts * (torch.log1p(size / self.SMALL) / size) / (2 * self.largest)
        frames = 1 + torch.div(
            lengths + self.hop_samples - 1, self.hop_samples, rounding_mode="floor"
        )
        return x, frames

    def levels(self, x: Tensor) -> Tensor:
        """Return the levels of spectra, to look at: (…, 2, F, T) → (…, F, T) in [0, 1].

        1 stands for the loudest waveform possible, 0 for ``LEVELS_DB`` less.
        """
        parts = (x - 0.5) * (2 * self.largest)
        size = parts.square().sum(dim=-3).sqrt()
        magnitude = self.SMALL * torch.expm1(size.clamp(max=2 * self.largest))
        decibels = 20 * torch.log10(magnitude.clamp_min(1e-12) / self.window.sum())
        return (1 + decibels / self.LEVELS_DB).clamp(0.0, 1.0)

    def inverse(self, x: Tensor) -> Tensor:
        """Return the waveforms (B, N) of spectra (B, 2, F, T), in whole steps, not clipped."""
        parts = (x - 0.5) * (2 * self.largest)
        size = parts.square().sum(dim=1, keepdim=True).clamp_min(1e-16).sqrt()
        parts = parts * (self.SMALL * torch.expm1(size.clamp(max=2 * self.largest)) / size)
        spectrum = torch.complex(parts[:, 0], parts[:, 1])
        samples: Tensor = torch.istft(
            spectrum,
            n_fft=self.n_fft,
            hop_length=self.hop_samples,
            window=self.window.to(x),
            length=(x.shape[3] - 1) * self.hop_samples,
        )
        return samples


def levels_of(front_end: object, x: Tensor) -> Tensor:
    """Return the levels (F, T) of one item of model input, to look at.

    Args:
        front_end: Front end that computed it.
        x: (F, T) spectrogram, which is returned, or (2, F, T) spectrum of a ``ComplexSpectrogram``.
    """
    return front_end.levels(x) if isinstance(front_end, ComplexSpectrogram) else x


def _masked(wavs: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
    """Zero the padding; return the waveforms and the number of valid samples."""
    if wavs.dim() != 2 or wavs.shape[1] == 0:
        raise InputError(f"waveforms have shape {tuple(wavs.shape)}, expected (batch, samples ≥ 1)")
    if lengths is None:
        return wavs, torch.full((wavs.shape[0],), wavs.shape[1], device=wavs.device)
    return wavs * length_mask(lengths, wavs.shape[1]), lengths


def _raised(wavs: Tensor, lengths: Tensor, level_dbfs: float) -> Tensor:
    """Raise waveforms (B, N) that are quieter than a level to it; leave louder ones."""
    power = wavs.square().sum(dim=1) / lengths
    gain = 10 ** (level_dbfs / 20) / power.clamp_min(1e-20).sqrt()
    return wavs * gain.clamp_min(1.0)[:, None]
