"""Turn waveforms in memory, as SpeechBrain passes them, into recordings."""

from __future__ import annotations

import torch
from torch import Tensor

from nip_audio.audio.io import Audio, ReadSettings, samples_sha256
from nip_audio.audio.levels import ClippingMeter, to_full_scale
from nip_audio.errors import AudioError, InputError

__all__ = ["audio_of", "split_batch"]

_LARGEST = 4.0  # resampling may exceed 1; 16-bit integers and other scales are far above this


def split_batch(wavs: Tensor, wav_lens: Tensor | None = None) -> list[Tensor]:
    """Split a padded batch into its items.

    Args:
        wavs: (B, N) or (N,) floating-point waveforms, full scale 1.
        wav_lens: (B,) lengths relative to N, as in SpeechBrain; None if no item is padded.

    Returns:
        B waveforms (n,), float32 on the CPU.

    Raises:
        InputError: If shape, dtype, scale or lengths are wrong; the text says which.

    Example:
        >>> [len(w) for w in split_batch(torch.zeros(2, 10), torch.tensor([1.0, 0.5]))]
        [10, 5]
    """
    if not torch.is_tensor(wavs) or not wavs.is_floating_point() or wavs.dim() not in (1, 2):
        what = f"{tuple(wavs.shape)} of {wavs.dtype}" if torch.is_tensor(wavs) else type(wavs)
        raise InputError(f"wavs are {what}, expected floating (batch, samples) or (samples,)")
    wavs = (wavs[None] if wavs.dim() == 1 else wavs).detach().float().cpu()
    count, size = wavs.shape
    if count == 0 or size == 0:
        raise InputError(f"wavs are {tuple(wavs.shape)}, expected at least one item and one sample")
    if not bool(wavs.isfinite().all()):
        raise InputError("wavs hold NaN or infinity; check the code that made them")
    largest = float(wavs.abs().max())
    if largest > _LARGEST:
        raise InputError(f"wavs reach {largest:g}, expected full scale 1; divide by their scale")
    if wav_lens is None:
        return list(wavs)
    relative = wav_lens.detach().double().cpu()
    if relative.shape != (count,) or not bool(((relative > 0) & (relative <= 1 + 1e-6)).all()):
        raise InputError(
            f"wav_lens are {wav_lens.tolist()} for {count} items, expected one in (0, 1] for each: "
            "its samples / the most samples"
        )
    samples = (relative * size).round().long().clamp(1, size)
    return [wav[: int(n)] for wav, n in zip(wavs, samples, strict=True)]


def audio_of(wav: Tensor, settings: ReadSettings, *, name: str = "waveform") -> Audio:
    """Make a recording of (n,) samples at the settings' rate.

    Its hash is that of the samples, since there is no file.

    Raises:
        AudioError: If it is too short, too long, silent or clipped, with the codes of
            ``read_audio``.
    """
    seconds = wav.shape[0] / settings.sample_rate_hz
    if seconds < settings.min_duration_s or seconds > settings.max_duration_s:
        short = seconds < settings.min_duration_s
        bound = settings.min_duration_s if short else settings.max_duration_s
        raise AudioError(
            name,
            code="too_short" if short else "too_long",
            found=f"it lasts {seconds:.2f} s, {'at least' if short else 'at most'} {bound:g} s are "
            "expected",
            remedy="record a longer one" if short else "cut it",
        )
    rms = float((wav - wav.mean()).square().mean().sqrt())
    if rms < settings.min_rms:
        raise AudioError(
            name,
            code="silent",
            found=f"it is silent or constant (rms {rms:.1e}, at least {settings.min_rms:g} is "
            "needed)",
            remedy="check the microphone and record again",
        )
    meter = ClippingMeter(1, settings.sample_rate_hz)
    meter.add(wav.numpy()[:, None])
    (clipped,) = meter.shares
    if clipped > settings.max_clipped_share:
        raise AudioError(
            name,
            code="clipped",
            found=f"{clipped:.0%} of its samples are cut off at the highest level",
            remedy="record again at a lower level",
        )
    (scaled,), changes = to_full_scale([wav.numpy()])
    samples = torch.from_numpy(scaled)
    return Audio(
        samples,
        settings.sample_rate_hz,
        settings.sample_rate_hz,
        1,
        "memory/FLOAT",
        samples_sha256(samples),
        clipped,
        changes,
    )
