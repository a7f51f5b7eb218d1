from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.signal import medfilt

from nip_audio.core.adapter import Batch, Bounds
from nip_audio.errors import InputError
from nip_audio.purifiers.codec import Codec, through_codec
from nip_audio.purifiers.down_sampling import DownSampling
from nip_audio.purifiers.median_filter import MedianFilter
from nip_audio.purifiers.random_crop import RandomCrop

WAVEFORM = Bounds(-1.0, 1.0)
SPECTROGRAM = Bounds(0.0, 1.0)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


RATE_HZ = 16000


def sine(frequency_hz: float, size: int = RATE_HZ) -> torch.Tensor:
    return 0.5 * torch.sin(2 * torch.pi * frequency_hz * torch.arange(size) / RATE_HZ)


def purified(purifier, x: torch.Tensor) -> torch.Tensor:
    return purifier.purify(Batch(x[None]), generator=seeded()).x[0]


def test_down_sampling_drops_what_lies_above_half_the_rate():
    down = DownSampling(rate_hz=8000, bounds=WAVEFORM)
    low, high = sine(1000), sine(5000)
    middle = slice(500, -500)  # tones that begin and end have energy everywhere
    assert purified(down, high)[middle].abs().max() < 1e-3
    torch.testing.assert_close(purified(down, low + high)[middle], low[middle], rtol=0, atol=2e-3)
    torch.testing.assert_close(purified(down, low)[middle], low[middle], rtol=0, atol=2e-3)


@pytest.mark.parametrize("rate_hz", [4000, 11025, 12800, 15000])
def test_down_sampling_takes_rates_that_are_no_divisor(rate_hz):
    out = purified(DownSampling(rate_hz=rate_hz, bounds=WAVEFORM), sine(700, 5001))
    torch.testing.assert_close(out[300:-300], sine(700, 5001)[300:-300], rtol=0, atol=5e-3)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"rate_hz": 16000}, "rate_hz is 16000, expected 500 to 15999"),
        ({"rate_hz": 8000.0}, "rate_hz is 8000.0, expected 500 to 15999, a whole number"),
        ({"rate_hz": 7919}, "expected a rate that has a large common divisor with 16000; use"),
        ({"sample_rate_hz": 0}, "sample_rate_hz is 0, expected 1000 to"),
    ],
)
def test_senseless_rates_are_errors(settings, match):
    with pytest.raises(InputError, match=match):
        DownSampling(bounds=WAVEFORM, **settings)


def test_a_median_removes_a_lone_spike_and_keeps_edges():
    x = torch.tensor([0.0, 0.0, 0.9, 0.0, 0.0, 0.5, 0.5, 0.5])
    out = purified(MedianFilter(kernel=3, bounds=WAVEFORM), x)
    assert out.tolist() == [0.0, 0.0, 0.0, 0.0, 0.0, 0.5, 0.5, 0.5]


@pytest.mark.parametrize("kernel", [3, 5, 9])
def test_a_median_is_scipys(kernel):
    x = torch.randn(400, generator=seeded(1)).clamp(-1, 1)
    out = purified(MedianFilter(kernel=kernel, bounds=WAVEFORM), x)
    inside = slice(kernel, -kernel)  # SciPy takes zeros beyond the edges
    expected = medfilt(x.numpy(), kernel).astype(np.float32)
    torch.testing.assert_close(out[inside], torch.from_numpy(expected)[inside])


@pytest.mark.parametrize("kernel", [1, 4, True, "3"])
def test_senseless_kernels_are_errors(kernel):
    with pytest.raises(InputError, match=f"kernel is {kernel!r}, expected"):
        MedianFilter(kernel=kernel, bounds=WAVEFORM)


def test_a_crop_is_a_part_played_again():
    x = torch.arange(10.0) / 10
    out = purified(RandomCrop(share=0.6, bounds=WAVEFORM), x)
    start = round(float(out[0]) * 10)
    assert 0 <= start <= 4
    expected = [*range(start, start + 6), *range(start, start + 4)]
    torch.testing.assert_close(out, torch.tensor(expected) / 10)


def test_every_crop_is_drawn_and_each_item_has_its_own():
    x = (torch.arange(10.0) / 10).expand(200, 10)
    lengths = torch.tensor([10, 5] * 100)
    crop = RandomCrop(share=0.6, bounds=WAVEFORM)
    out = crop.purify(Batch(x, lengths), generator=seeded()).x
    assert set((out[::2, 0] * 10).round().int().tolist()) == {0, 1, 2, 3, 4}
    assert set((out[1::2, 0] * 10).round().int().tolist()) == {0, 1, 2}
    assert out[1::2, :5].max() < 0.5


@pytest.mark.parametrize("share", [0.0, 1.0, float("nan"), "half"])
def test_senseless_shares_are_errors(share):
    with pytest.raises(InputError, match="expected 0.05 to 0.99"):
        RandomCrop(share=share, bounds=WAVEFORM)


@pytest.mark.parametrize("codec", ["mp3", "vorbis", "opus"])
def test_codecs_keep_voice_and_time(voice, codec):
    clip = torch.from_numpy(voice(3, 1))
    out = purified(Codec(codec=codec, bounds=WAVEFORM), clip)
    lags = np.correlate(out.numpy(), clip.numpy(), "full")
    assert int(lags.argmax()) == len(clip) - 1
    assert float(torch.cosine_similarity(out, clip, dim=0)) > 0.9
    assert not torch.equal(out, clip)


@pytest.mark.parametrize("codec", ["mp3", "vorbis", "opus"])
def test_more_compression_is_further_from_the_clip(voice, codec):
    clip = torch.from_numpy(voice(3, 1))
    light, heavy = (
        (purified(Codec(codec=codec, compression_level=level, bounds=WAVEFORM), clip) - clip).norm()
        for level in (0.0, 0.99)
    )
    assert light < 0.7 * heavy


def test_vorbis_takes_recordings_of_minutes():
    """Encoded in one call they overflow libsndfile's stack, which ends the process."""
    noise = 0.1 * torch.randn(130 * 8000, generator=seeded()).numpy()
    assert through_codec(noise, "vorbis", sample_rate_hz=8000).shape == noise.shape


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"codec": "aac"}, "codec is 'aac', expected one of mp3, vorbis, opus"),
        ({"compression_level": 1.0}, "compression_level is 1.0, expected 0 to 0.99; 0.5 is usual"),
        ({"codec": "opus", "sample_rate_hz": 44100}, "44100 Hz, opus expects one of 8000, 12000"),
        ({"bounds": SPECTROGRAM}, r"bounds are \(0, 1\), expected \(-1, 1\)"),
    ],
)
def test_senseless_codecs_are_errors(settings, match):
    with pytest.raises(InputError, match=match):
        Codec(**{"bounds": WAVEFORM, **settings})


def test_a_codec_takes_waveforms_only(spectrograms):
    with pytest.raises(InputError, match=r"expected waveforms \(items, samples\)"):
        Codec(bounds=WAVEFORM).purify(Batch(spectrograms()), generator=seeded())
