"""Harmless changes: what each does to a clip, and that it can be repeated."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from nip_audio.screening.changes import (
    CHANGES,
    TELEPHONE_HZ,
    add_noise,
    as_clip,
    change_gain,
    filter_band,
    limit_peaks,
    move_in_time,
    play_faster,
    resample_to,
    reverberate,
    surround_with_silence,
)

RATE_HZ = 16_000
NARROW = [name for name, change in CHANGES.items() if change.kind == "telephone"]
NUMBERED = [name for name, change in CHANGES.items() if "{" in change.title]


@pytest.fixture(scope="module")
def clip(voice) -> torch.Tensor:
    return torch.from_numpy(voice(3, 1))


@pytest.fixture(scope="module")
def noise() -> np.ndarray:
    """A second of white noise, (16000,), whose spectrum is flat to half the rate."""
    return 0.1 * np.random.default_rng(4).standard_normal(RATE_HZ)


def apply(name: str, clip: torch.Tensor, *, strength: float | None = None, seed: int = 0):
    rng = np.random.default_rng(seed)
    drawn = CHANGES[name].draw(rng)
    strength = drawn if strength is None else strength
    return CHANGES[name].apply(clip, sample_rate_hz=RATE_HZ, strength=strength, rng=rng)


def power_above(samples: np.ndarray, hz: float) -> float:
    """Return the share of the power above a frequency, without what the edges add to it."""
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples)))) ** 2
    return float(spectrum[np.fft.rfftfreq(len(samples), 1 / RATE_HZ) > hz].sum() / spectrum.sum())


def snr_db(clean: np.ndarray, changed: np.ndarray) -> float:
    return float(10 * np.log10(np.mean(clean**2) / np.mean((changed - clean) ** 2)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", CHANGES)
def test_keeps_length_type_and_bounds_and_leaves_its_input_alone(name, clip, dtype):
    x = clip.to(dtype)
    before = x.clone()
    got = apply(name, x)
    assert got.shape == x.shape
    assert got.dtype == dtype
    assert got.isfinite().all()
    assert got.abs().max() <= 1
    assert torch.equal(x, before)
    assert torch.equal(got, x) == (name == "none")


@pytest.mark.parametrize("name", CHANGES)
def test_repeats_with_the_same_generator(name, clip):
    assert torch.equal(apply(name, clip, seed=5), apply(name, clip, seed=5))


@pytest.mark.parametrize("name", ["white", "pink", "rumble", "uniform", "babble", "room"])
def test_draws_something_else_with_another_generator(name, clip):
    strength = CHANGES[name].strengths[0]
    first, other = (apply(name, clip, strength=strength, seed=seed) for seed in (5, 6))
    assert not torch.equal(first, other)


@pytest.mark.parametrize("name", CHANGES)
def test_both_ends_of_the_strengths_work(name, clip):
    weak, strong = (apply(name, clip, strength=s) for s in CHANGES[name].strengths)
    if CHANGES[name].strengths[0] != CHANGES[name].strengths[1]:
        assert not torch.equal(weak, strong)


@pytest.mark.parametrize("name", CHANGES)
def test_strengths_are_drawn_between_the_weakest_and_the_strongest(name):
    change, rng = CHANGES[name], np.random.default_rng(0)
    low, high = change.strengths
    drawn = [change.draw(rng) for _ in range(400)]
    assert min(drawn) >= low
    assert max(drawn) <= high
    middle = np.sqrt(low * high) if change.logarithmic else (low + high) / 2
    # of 400 draws, 200 lie below the middle with a standard deviation of 10
    if low < high:
        assert 150 < sum(one < middle for one in drawn) < 250


@pytest.mark.parametrize(
    ("name", "strength", "words"),
    [
        ("none", 0.0, "as recorded"),
        ("white", 24.6, "white noise at 25 dB"),
        ("uniform", 0.002, "uniform noise of ±0.0020"),
        ("room", 0.44, "a room of 0.4 s"),
        ("mp3", 0.5, "MP3 of level 0.5"),
        ("gain", 6.2, "+6 dB"),
        ("gain", -20.0, "-20 dB"),
        ("clipped", 0.012, "clipping of 1.2%"),
        ("low-pass", 0.6, "a low-pass at 60% of the band"),
        ("gsm", 0.0, "a telephone with GSM"),
    ],
)
def test_names_say_the_strength(name, strength, words):
    assert CHANGES[name].name(strength) == words


@pytest.mark.parametrize("name", NUMBERED)
def test_names_of_two_strengths_differ(name):
    change = CHANGES[name]
    assert len({change.name(strength) for strength in change.strengths}) == 2


@pytest.mark.parametrize("slope", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("asked_db", [5.0, 25.0])
def test_noise_has_its_signal_to_noise_ratio(slope, asked_db, voice):
    clean = voice(3, 1).astype(np.float64)
    changed = add_noise(clean, np.random.default_rng(0), snr_db=asked_db, slope=slope)
    # white noise is drawn with unit variance, and its rms over 16,000 samples is within 1 %
    assert snr_db(clean, changed) == pytest.approx(asked_db, abs=0.1)


@pytest.mark.parametrize("slope", [0.0, 1.0, 2.0])
def test_the_power_of_coloured_noise_falls_with_the_frequency(slope):
    made = add_noise(np.ones(2**16), np.random.default_rng(0), snr_db=0.0, slope=slope) - 1
    power = np.abs(np.fft.rfft(made)) ** 2
    hz = np.fft.rfftfreq(len(made), 1 / RATE_HZ)
    octaves = [power[(hz >= low) & (hz < 2 * low)].mean() for low in (250, 500, 1000, 2000)]
    steps = np.log2(np.array(octaves[:-1]) / octaves[1:])
    np.testing.assert_allclose(steps, slope, atol=0.2)  # an octave has 1,000 bins or more


def test_uniform_noise_has_its_largest_value(noise):
    added = add_noise(noise, np.random.default_rng(0), largest=0.004) - noise
    assert 0.0039 < np.abs(added).max() <= 0.004


def test_babble_has_its_signal_to_noise_ratio(clip):
    changed = apply("babble", clip, strength=20.0).double().numpy()
    assert snr_db(clip.double().numpy(), changed) == pytest.approx(20.0, abs=0.01)


@pytest.mark.parametrize("name", NARROW)
def test_narrow_changes_leave_nothing_above_4_khz(name, noise):
    changed = apply(name, torch.from_numpy(noise)).numpy()
    assert power_above(noise, 4100) > 0.4
    assert power_above(changed, 4100) < 1e-4


def test_narrow_are_the_telephones_and_8_khz():
    assert set(NARROW) == {"8 kHz", "telephone", "mu-law", "gsm"}


def test_a_telephone_has_its_band(noise):
    changed = apply("telephone", torch.from_numpy(noise)).numpy()
    low, high = TELEPHONE_HZ
    inside = power_above(changed, low) - power_above(changed, high)
    assert inside > 0.97


def test_a_low_pass_keeps_what_is_below(noise):
    got = filter_band(noise, rate_hz=RATE_HZ, band_hz=(0.0, 4000.0))
    assert power_above(got, 6000) < 1e-3  # half an octave above, the filter takes 28 dB
    kept = np.sum(got**2) / np.sum(noise**2)
    assert kept == pytest.approx(0.48, abs=0.03)  # half of 8 kHz, less what it takes below 4 kHz


def test_resampling_keeps_what_both_rates_hold(noise):
    got = resample_to(noise, rate_hz=RATE_HZ, to_hz=8000)
    low = filter_band(noise, rate_hz=RATE_HZ, band_hz=(0.0, 3000.0))
    again = filter_band(got, rate_hz=RATE_HZ, band_hz=(0.0, 3000.0))
    middle = slice(400, -400)
    assert snr_db(low[middle], again[middle]) > 30


def test_a_room_keeps_the_rms_and_the_direct_sound(noise):
    rng = np.random.default_rng(0)
    click = np.zeros(RATE_HZ)
    click[100] = 1.0
    wet = reverberate(click, rng, rate_hz=RATE_HZ, rt60_s=0.4)
    assert np.sum(wet**2) == pytest.approx(1.0)
    assert wet.argmax() == 100
    assert not wet[:99].any() or np.abs(wet[:99]).max() < 1e-9
    assert np.sum(wet[101:] ** 2) / wet[100] ** 2 == pytest.approx(0.25, abs=0.01)  # 6 dB below
    early, late = (np.sum(wet[a : a + 1600] ** 2) for a in (200, 3400))
    # 0.2 s of 0.4 s: the tail has fallen by 30 dB
    assert 10 * np.log10(early / late) == pytest.approx(30, abs=1.5)


def test_gain_by_hand():
    np.testing.assert_allclose(change_gain(np.array([0.1, -0.2]), gain_db=20.0), [1.0, -2.0])


def test_limits_cut_or_press_the_share_of_the_largest_samples():
    ramp = np.linspace(-1, 1, 2001)
    cut = limit_peaks(ramp, share=0.1)
    assert cut.max() == pytest.approx(0.9)
    assert (np.abs(cut) < np.abs(ramp)).mean() == pytest.approx(0.1, abs=0.002)
    soft = limit_peaks(ramp, share=0.1, soft=True)
    np.testing.assert_allclose(soft, 0.9 * np.tanh(ramp / 0.9))


def test_moves_in_a_circle():
    assert move_in_time(np.arange(4.0), seconds=0.25, rate_hz=4).tolist() == [3, 0, 1, 2]


@pytest.mark.parametrize("factor", [0.94, 1.06])
def test_faster_is_shorter_and_higher(factor, tone):
    made = play_faster(tone(1.0, frequency_hz=1000.0).astype(float), factor=factor)
    assert len(made) == pytest.approx(RATE_HZ / factor, abs=1)
    spectrum = np.abs(np.fft.rfft(made))
    peak_hz = np.fft.rfftfreq(len(made), 1 / RATE_HZ)[spectrum.argmax()]
    assert peak_hz == pytest.approx(1000 * factor, abs=1.5)


def test_surrounds_with_silence_or_hiss():
    clip = np.ones(10)
    rng = np.random.default_rng(0)
    silent = surround_with_silence(clip, rng, seconds=0.5, rate_hz=RATE_HZ)
    assert len(silent) == 2 * 8000 + 10
    assert not silent[:8000].any()
    assert not silent[8010:].any()
    np.testing.assert_array_equal(silent[8000:8010], clip)
    hiss = surround_with_silence(clip, rng, seconds=0.5, rate_hz=RATE_HZ, rms=0.01)
    assert hiss[:8000].std() == pytest.approx(0.01, rel=0.05)  # of 8,000 draws, within 1 % or so


@pytest.mark.parametrize("size", [3, 7])
def test_a_clip_is_cut_or_padded_to_its_length_and_clipped(size):
    got = as_clip(np.full(size, 1.5), torch.zeros(5))
    assert got.dtype == torch.float32
    assert got.tolist() == [1.0] * min(size, 5) + [0.0] * max(0, 5 - size)


def test_a_change_clips_what_leaves_full_scale(clip):
    loud = replace(CHANGES["gain"], strengths=(60.0, 60.0))
    got = loud.apply(clip, sample_rate_hz=RATE_HZ, strength=60.0, rng=np.random.default_rng(0))
    assert got.abs().max() == 1
