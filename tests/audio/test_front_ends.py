"""Front ends for models of any origin: bounded, differentiable, and back to sound."""

from __future__ import annotations

import librosa
import numpy as np
import pytest
import torch
from torch import Tensor

from nip_audio.audio.front_ends import (
    BandRange,
    ComplexSpectrogram,
    MelBands,
    SpectralFrontEnd,
    levels_of,
)
from nip_audio.audio.resynthesis import can_resynthesize, resynthesize
from nip_audio.errors import InputError
from tests.tolerance import assert_same_but_for_rounding

RATE = 16_000


def voice(seconds: float = 1.0) -> Tensor:
    time = torch.arange(round(seconds * RATE)) / RATE
    wave = sum(torch.sin(2 * torch.pi * 140 * k * time) / k for k in range(1, 20))
    noise = torch.randn(time.shape, generator=torch.Generator().manual_seed(0))
    return 0.05 * torch.as_tensor(wave) + 0.002 * noise


def mel_bands(*, centred: bool, n_fft: int = 512, window: int = 400) -> MelBands:
    filters = librosa.filters.mel(sr=RATE, n_fft=n_fft, n_mels=40)
    return MelBands(
        torch.from_numpy(filters),
        torch.from_numpy(librosa.mel_frequencies(42, fmax=RATE / 2)[1:-1]),
        torch.hann_window(window),
        sample_rate_hz=RATE,
        n_fft=n_fft,
        hop_samples=160,
        centred=centred,
        floor=1e-10,
        band_range=BandRange(-100.0, 50.0),
    )


@pytest.mark.parametrize("centred", [True, False])
def test_mel_bands_are_librosas(centred):
    front_end, wav = mel_bands(centred=centred), voice()
    expected = librosa.feature.melspectrogram(
        y=wav.numpy(), sr=RATE, n_fft=512, hop_length=160, win_length=400, center=centred,
        n_mels=40, pad_mode="constant",
    )  # fmt: skip
    x, frames = front_end(wav[None])
    assert frames.tolist() == [expected.shape[1]]
    levels = front_end.band_range.to_decibels(x)[0]
    theirs = torch.from_numpy(10 * np.log10(np.maximum(expected, 1e-10)))
    loud = theirs > theirs.max() - 80  # in quieter bands both are rounding errors
    assert_same_but_for_rounding(levels[loud], theirs[loud], depth=20, size=100.0)


@pytest.mark.parametrize("centred", [True, False])
def test_the_padding_of_a_batch_is_zero_and_changes_nothing(centred):
    front_end = mel_bands(centred=centred)
    items = [voice(1.0), voice(0.6)]
    x, frames = front_end(
        torch.nn.utils.rnn.pad_sequence(items, batch_first=True), torch.tensor([16000, 9600])
    )
    for row, count, item in zip(x, frames, items, strict=True):
        alone = front_end(item[None])[0][0]
        whole = int(count) if not centred else int(count) - 2  # the last ones see the end
        assert alone.shape[1] == int(count)
        assert_same_but_for_rounding(row[:, :whole], alone[:, :whole], depth=20)
        assert not row[:, int(count) :].any()


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("samples", [16_000, 15_913])
def test_a_louder_spectrogram_gives_a_louder_sound(centred, samples):
    front_end, wav = mel_bands(centred=centred), voice()[:samples]
    assert isinstance(front_end, SpectralFrontEnd)
    before = front_end(wav[None])[0][0]
    made = resynthesize(wav, before, before + 6 / 150, front_end)
    gain = 20 * torch.log10(made.samples.norm() / wav.norm())
    assert abs(float(gain) - 6) < 0.2
    assert made.samples.shape == wav.shape
    assert made.residuals[-1] < 0.2 * made.residuals[0]


def test_too_short_an_item_is_refused():
    with pytest.raises(InputError, match="expected at least one frame"):
        mel_bands(centred=False)(torch.zeros(1, 300))


def test_an_empty_range_is_refused():
    with pytest.raises(InputError, match="high_db is -20"):
        BandRange(0.0, -20.0)


@pytest.mark.parametrize("samples", [1, 127, 128, 5000, 16_000])
def test_complex_spectra_are_inverted(samples):
    front_end = ComplexSpectrogram()
    wav = voice()[:samples] / voice().abs().max()
    x, frames = front_end(wav[None])
    assert frames.tolist() == [x.shape[3]]
    assert float(x.min()) >= 0
    assert float(x.max()) <= 1
    back = front_end.inverse(x)[0]
    assert back.shape[0] - samples == -samples % 128
    assert not back[samples:].abs().max() > 1e-5 if back.shape[0] > samples else True
    # float32 of [0, 1] resolves a magnitude of 256 to some 1e-4, a sample to much less
    assert float((back[:samples] - wav).abs().max()) < 2e-5


def test_the_loudest_waveform_stays_in_the_bounds():
    x = ComplexSpectrogram()(torch.ones(1, 4096))[0]
    assert float(x.min()) >= 0
    assert float(x.max()) <= 1


@pytest.mark.parametrize("wav", [torch.zeros(1, 4096), voice(0.3)[None]], ids=["silence", "voice"])
def test_gradients_there_and_back_are_finite(wav):
    front_end = ComplexSpectrogram()
    wav = wav.clone().requires_grad_()
    back = front_end.inverse(front_end(wav)[0])
    weights = torch.randn(back.shape, generator=torch.Generator().manual_seed(1))
    (found,) = torch.autograd.grad((back * weights).sum(), wav)
    assert bool(found.isfinite().all())
    expected = weights[:, : wav.shape[1]]
    assert float((found - expected).abs().max()) < 1e-2  # there and back is the identity


def test_a_changed_complex_spectrum_is_heard():
    front_end, wav = ComplexSpectrogram(), voice()
    before = front_end(wav[None])[0][0]
    target = front_end(0.5 * wav[None])[0][0]
    made = resynthesize(wav, before, target, front_end)
    assert float((made.samples - 0.5 * wav).abs().max()) < 1e-4
    assert made.residuals[-1] < 1e-4
    with pytest.raises(InputError, match="expected \\(2, 257, 126\\)"):
        resynthesize(wav, before[:, :5], target[:, :5], front_end)


def test_other_front_ends_cannot_be_resynthesised():
    assert not can_resynthesize(torch.nn.Identity())
    assert not can_resynthesize(None)
    with pytest.raises(InputError, match="the front end is Identity"):
        resynthesize(voice(), torch.zeros(2, 2), torch.zeros(2, 2), torch.nn.Identity())


def test_a_step_that_does_not_divide_the_window_is_refused():
    with pytest.raises(InputError, match="hop_samples is 100"):
        ComplexSpectrogram(hop_samples=100)


def test_levels_of_a_complex_spectrum_are_decibels_below_the_loudest_waveform():
    front_end = ComplexSpectrogram()
    wavs = torch.ones(1, 5120)  # the loudest: a constant of full scale
    x = front_end(wavs)[0][0]
    levels = levels_of(front_end, x)
    assert levels.shape == x.shape[1:]
    middle = levels.shape[1] // 2
    assert levels[0, middle].item() == pytest.approx(1.0, abs=1e-4)
    quieter = levels_of(front_end, front_end(wavs / 10)[0][0])
    assert quieter[0, middle].item() == pytest.approx(1 - 20 / front_end.LEVELS_DB, abs=1e-4)
    assert levels[100, middle].item() < 0.2


def test_a_spectrogram_is_looked_at_as_it_is():
    x = torch.rand(3, 4)
    assert levels_of(None, x) is x
