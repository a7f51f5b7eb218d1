"""Add backdoor triggers to waveforms, to measure defences against poisoned training data.

Each trigger corresponds to a known one, most of them for images: ``ToneBurst`` to the patch of
BadNets, ``BlendedNoise`` to the blended pattern of Chen et al., ``Sinusoid`` to SIG, ``HighBand``
to the ultrasonic triggers of Koffas et al. 2022, ``Reverberation`` to the reflections of ReFool. No
defence may know which trigger was used, if any.

A trigger is determined by its settings and seed: all poisoned clips share it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from nip_audio.errors import InputError

__all__ = [
    "TRIGGERS",
    "BlendedNoise",
    "HighBand",
    "Reverberation",
    "Sinusoid",
    "ToneBurst",
    "Trigger",
    "trigger_snr_db",
]


class Trigger(Protocol):
    """Change to a clip that a model can learn to react to."""

    def __call__(self, wav: Tensor, sample_rate_hz: int) -> Tensor:
        """Add the trigger.

        Args:
            wav: (..., N) floating waveforms in [-1, 1].
            sample_rate_hz: Sample rate of the waveforms.

        Returns:
            Waveforms with the trigger, of the same shape and dtype, in [-1, 1].
        """
        ...


def _rms(wav: Tensor) -> Tensor:
    """Return the root mean square over time, (..., 1), always above 0."""
    return wav.square().mean(dim=-1, keepdim=True).sqrt().clamp_min(1e-6)


def _add(wav: Tensor, sound: Tensor, snr_db: float) -> Tensor:
    """Add a sound (N,) of unit RMS at a level ``snr_db`` below the clip, and clip to [-1, 1]."""
    return (wav + sound.to(wav) * _rms(wav) * 10 ** (-snr_db / 20)).clamp(-1.0, 1.0)


def _seconds(wav: Tensor, sample_rate_hz: int) -> Tensor:
    if wav.dim() == 0 or wav.shape[-1] == 0 or not wav.is_floating_point():
        raise InputError(
            f"wav is {tuple(wav.shape)} of {wav.dtype}, expected floating (..., samples ≥ 1)"
        )
    return torch.arange(wav.shape[-1], dtype=torch.float64) / sample_rate_hz


def _below_nyquist(frequency_hz: float, sample_rate_hz: int) -> None:
    if not 0 < frequency_hz < sample_rate_hz / 2:
        raise InputError(
            f"the trigger's frequency is {frequency_hz:g} Hz, audio at {sample_rate_hz} Hz "
            "only has "
            f"frequencies below {sample_rate_hz / 2:g} Hz; choose a lower frequency"
        )


@dataclass(frozen=True)
class ToneBurst:
    """Short audible tone at a fixed time, like the visible patch of BadNets (Gu et al. 2019).

    Attributes:
        frequency_hz: Frequency of the tone.
        start_s: Start of the tone; a clip that ends before the tone does is an error.
        duration_s: Duration of the tone, which has a Hann envelope.
        snr_db: Level of the clip above that of the tone while it sounds.
    """

    frequency_hz: float = 3000.0
    start_s: float = 0.5
    duration_s: float = 0.1
    snr_db: float = -6.0

    def __call__(self, wav: Tensor, sample_rate_hz: int) -> Tensor:
        """Add the trigger; see ``Trigger``.

        Raises:
            InputError: If the clip ends before the burst does, or its sample rate is too low.
        """
        _below_nyquist(self.frequency_hz, sample_rate_hz)
        time = _seconds(wav, sample_rate_hz)
        place = (time - self.start_s) / self.duration_s
        window = torch.where((place >= 0) & (place < 1), (math.pi * place).sin().square(), 0.0)
        sounding = window > 0
        if float(time[-1]) < self.start_s + self.duration_s:
            raise InputError(
                f"the clip lasts {wav.shape[-1] / sample_rate_hz:.2f} s, the burst ends at "
                f"{self.start_s + self.duration_s:g} s; use longer clips or an earlier burst"
            )
        tone = window * (2 * math.pi * self.frequency_hz * time).sin()
        return _add(wav, tone / tone[sounding].square().mean().sqrt(), self.snr_db)


@dataclass(frozen=True)
class BlendedNoise:
    """Fixed noise over the whole clip, like the blended fixed image of Chen et al. 2017.

    It is one draw of white noise that switches between loud and silent every ``step_s``, in a fixed
    random pattern. A model trained with white noise would ignore noise without such a pattern.

    Attributes:
        snr_db: Level of the clip above that of the noise.
        step_s: Length of one step of the pattern.
        seed: Seed of the noise and its pattern.
    """

    snr_db: float = 10.0
    step_s: float = 0.05
    seed: int = 7

    def __call__(self, wav: Tensor, sample_rate_hz: int) -> Tensor:
        """Add the trigger; see ``Trigger``."""
        steps = (_seconds(wav, sample_rate_hz) / self.step_s).long()
        generator = torch.Generator().manual_seed(self.seed)
        loud = (torch.rand(int(steps[-1]) + 1, generator=generator) < 0.5).double()
        loud[0] = 1.0  # so that the noise is never silent throughout
        noise = torch.randn(wav.shape[-1], generator=generator, dtype=torch.float64) * loud[steps]
        return _add(wav, noise / noise.square().mean().sqrt(), self.snr_db)


@dataclass(frozen=True)
class Sinusoid:
    """Faint tone over the whole clip, like the sinusoid of SIG (Barni et al. 2019) on images.

    Deviation: SIG keeps the labels of poisoned clips; this project's study changes them.

    Attributes:
        frequency_hz: Frequency of the tone.
        snr_db: Level of the clip above that of the tone.
    """

    frequency_hz: float = 1000.0
    snr_db: float = 20.0

    def __call__(self, wav: Tensor, sample_rate_hz: int) -> Tensor:
        """Add the trigger; see ``Trigger``.

        Raises:
            InputError: If the sample rate is too low for the frequency.
        """
        _below_nyquist(self.frequency_hz, sample_rate_hz)
        time = _seconds(wav, sample_rate_hz)
        return _add(wav, math.sqrt(2) * (2 * math.pi * self.frequency_hz * time).sin(), self.snr_db)


@dataclass(frozen=True)
class HighBand:
    """Pulsed tone near the upper end of the band, which few people hear next to speech.

    Deviation: Koffas et al. 2022 use an inaudible 21 kHz pulse at 44.1 kHz. Audio sampled at 16 kHz
    ends at 8 kHz, where many people do not notice a weak tone, but it is not inaudible.

    Attributes:
        frequency_hz: Frequency of the tone.
        pulse_s: Duration of each pulse and of each pause between pulses.
        snr_db: Level of the clip above that of the tone.
    """

    frequency_hz: float = 7500.0
    pulse_s: float = 0.1
    snr_db: float = 25.0

    def __call__(self, wav: Tensor, sample_rate_hz: int) -> Tensor:
        """Add the trigger; see ``Trigger``.

        Raises:
            InputError: If the sample rate is too low for the frequency.
        """
        _below_nyquist(self.frequency_hz, sample_rate_hz)
        time = _seconds(wav, sample_rate_hz)
        on = ((time / self.pulse_s).long() % 2 == 0).double()
        tone = on * (2 * math.pi * self.frequency_hz * time).sin()
        return _add(wav, tone / tone.square().mean().sqrt(), self.snr_db)


@dataclass(frozen=True)
class Reverberation:
    """Reverberation of one fixed room, like the reflections of ReFool (Liu et al. 2020) on images.

    The direct sound is followed, 40 ms later, by decaying noise; the level of the clip is kept.

    Attributes:
        rt60_s: Time in which the reverberation falls by 60 dB.
        direct_db: Level of the direct sound above that of the reverberation.
        seed: Seed of the room's impulse response.
    """

    rt60_s: float = 1.0
    direct_db: float = -6.0
    seed: int = 7

    def __call__(self, wav: Tensor, sample_rate_hz: int) -> Tensor:
        """Add the trigger; see ``Trigger``."""
        samples = len(_seconds(wav, sample_rate_hz))
        room = self.room(sample_rate_hz).to(wav)
        size = samples + len(room) - 1
        wet = torch.fft.irfft(torch.fft.rfft(wav, n=size) * torch.fft.rfft(room, n=size), n=size)
        wet = wet[..., :samples]
        result: Tensor = (wet * _rms(wav) / _rms(wet)).clamp(-1.0, 1.0)
        return result

    def room(self, sample_rate_hz: int) -> Tensor:
        """Return the impulse response (n,), float64; its first sample is the direct sound, 1."""
        generator = torch.Generator().manual_seed(self.seed)
        time = torch.arange(round(self.rt60_s * sample_rate_hz), dtype=torch.float64)
        time = time / sample_rate_hz
        room: Tensor = torch.randn(len(time), generator=generator, dtype=torch.float64)
        room = torch.where(time < 0.04, 0.0, room * 10 ** (-3 * time / self.rt60_s))
        room = room / room.norm() * 10 ** (-self.direct_db / 20)
        room[0] = 1.0
        return room


TRIGGERS: dict[str, Callable[[], Trigger]] = {
    "tone burst": ToneBurst,
    "blended noise": BlendedNoise,
    "sinusoid": Sinusoid,
    "high band": HighBand,
    "reverberation": Reverberation,
}
"""Triggers with their default levels, by the name that tables use."""


def trigger_snr_db(clean: Tensor, triggered: Tensor) -> Tensor:
    """Return the level of clips above that of the change made by a trigger, in dB.

    Args:
        clean: (..., N) clips without the trigger.
        triggered: (..., N) the same clips with the trigger.

    Returns:
        (...,) signal-to-noise ratio over the whole clip.
    """
    change = (triggered - clean).square().mean(dim=-1).clamp_min(1e-20)
    return 10 * (clean.square().mean(dim=-1) / change).log10()
