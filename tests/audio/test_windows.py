"""Windows of a recording's sound: silence is left out, nothing else is."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nip_audio.audio.windows import has_speech, sound_of, voice_of, windows_of
from nip_audio.errors import InputError

RATE_HZ = 16_000
SLACK_S = 0.15  # the collar of 0.1 s, and frames of 0.02 s at its ends


@pytest.fixture(scope="module")
def speech(voice) -> np.ndarray:
    return np.concatenate([voice(2, take) for take in range(2)]).astype(float)


def silence(seconds: float, *, rms: float = 0.0, seed: int = 0) -> np.ndarray:
    return rms * np.random.default_rng(seed).standard_normal(round(seconds * RATE_HZ))


def joined(*parts: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.concatenate(parts)).float()


def sound_s(sound: np.ndarray) -> float:
    return float(sound.sum()) / RATE_HZ


@pytest.mark.parametrize("rms", [0.0, 1e-5, 1e-4])
@pytest.mark.parametrize("where", ["before", "after", "within"])
def test_silence_and_hiss_are_left_out(where, rms, speech):
    quiet = silence(2.0, rms=rms)
    half = len(speech) // 2
    parts = {
        "before": (quiet, speech),
        "after": (speech, quiet),
        "within": (speech[:half], quiet, speech[half:]),
    }[where]
    places = np.concatenate([np.full(len(part), part is not quiet) for part in parts])
    sound = sound_of(joined(*parts), RATE_HZ)
    assert sound.shape == places.shape
    assert sound[places].all()
    assert sound_s(sound & ~places) <= (2 if where == "within" else 1) * SLACK_S


@pytest.mark.parametrize("where", ["before", "after"])
def test_a_loud_tone_elsewhere_does_not_hide_speech(where, speech, tone):
    loud = tone(1.0, amplitude=0.95).astype(float)
    low = 0.1 * speech  # its softest syllables lie 50 dB below the tone
    parts = (loud, silence(1.5), low) if where == "before" else (low, silence(1.5), loud)
    sound = sound_of(joined(*parts), RATE_HZ)
    heard = sound[-len(low) :] if where == "before" else sound[: len(low)]
    assert heard.all()
    assert sound_s(sound) < 3 + 2 * SLACK_S


def test_hiss_far_below_the_sound_around_it_is_left_out(speech):
    """It lies 40 dB below the sound, and above what counts as silence everywhere."""
    half, hiss = len(speech) // 2, silence(0.8, rms=1e-3)
    sound = sound_of(joined(speech[:half], hiss, speech[half:]), RATE_HZ)
    assert sound_s(sound[half : half + len(hiss)]) <= 2 * SLACK_S
    assert sound_of(joined(hiss), RATE_HZ).all()  # alone, it is all that there is


def test_short_pauses_belong_to_sound_and_long_ones_do_not(speech):
    half, rng = len(speech) // 2, np.random.default_rng(0)
    for seconds, kept in ((0.25, True), (1.0, False)):
        pause = 0.0005 * rng.standard_normal(round(seconds * RATE_HZ))  # as faint as in a room
        sound = sound_of(joined(speech[:half], pause, speech[half:]), RATE_HZ)
        assert sound.all() == kept


def test_silence_that_no_microphone_makes_is_never_sound(speech):
    """Whoever hides an attack could fill each window with it up to the length of a pause."""
    half = len(speech) // 2
    sound = sound_of(joined(speech[:half], silence(0.25), speech[half:]), RATE_HZ)
    assert sound_s(~sound) == pytest.approx(0.25, abs=0.04)


@pytest.mark.parametrize("offset", [0.1, -0.5])
def test_a_constant_offset_is_no_sound(offset, speech):
    still = np.full(2 * RATE_HZ, offset)
    assert not sound_of(joined(still), RATE_HZ).any()
    # nor does it hide speech, or make the silence beside it loud
    sound = sound_of(joined(silence(2.0) + offset, 0.5 * speech + offset), RATE_HZ)
    assert sound[2 * RATE_HZ :].all()
    assert sound_s(sound[: 2 * RATE_HZ]) <= SLACK_S


def test_a_click_is_sound_with_its_surroundings():
    x = 0.00022 * torch.randn(RATE_HZ, generator=torch.Generator().manual_seed(0))
    x[8000] = 0.5
    sound = sound_of(x, RATE_HZ)
    assert sound[8000]
    assert sound_s(sound) == pytest.approx(0.22, abs=1e-9)  # a frame, and 0.1 s on either side


@pytest.mark.parametrize("count", [1, 100, 320, 321])
def test_very_short_input(count):
    x = 0.1 * torch.randn(count, generator=torch.Generator().manual_seed(0))
    (window,) = windows_of(x, most=RATE_HZ, sample_rate_hz=RATE_HZ)
    assert window.start_s == 0
    assert torch.equal(window.samples, x)


@pytest.mark.parametrize("rms", [0.0, 1e-5])
def test_a_silent_recording_is_taken_as_it_is(rms):
    x = joined(silence(2.5, rms=rms))
    windows = windows_of(x, most=RATE_HZ, sample_rate_hz=RATE_HZ)
    assert [len(one.samples) for one in windows] == [13_333] * 3
    assert torch.equal(windows[0].samples, x[:13_333])


@pytest.mark.parametrize("seconds", [0.3, 1.0, 1.01, 1.99, 2.0, 2.01, 5.0, 7.77])
def test_windows_are_equal_long_enough_and_cover_all(seconds, tone):
    x = torch.from_numpy(tone(seconds))
    most = RATE_HZ
    windows = windows_of(x, most=most, sample_rate_hz=RATE_HZ)
    assert len(windows) == np.ceil(seconds - 1e-9)
    (size,) = {len(one.samples) for one in windows}
    assert size <= most
    if len(windows) > 1:
        assert 2 * size >= most
    starts = [round(one.start_s * RATE_HZ) for one in windows]
    for start, one in zip(starts, windows, strict=True):
        assert torch.equal(one.samples, x[start : start + size])
    assert starts[0] == 0
    assert starts[-1] + size == len(x)
    # a length that is no multiple of their number leaves less than a sample between two
    assert np.diff(starts).max(initial=0) <= size + 1


def test_windows_hold_sound_alone_and_tell_where_it_was(tone):
    sounds = [tone(1.0, frequency_hz=hz).astype(float) for hz in (300.0, 700.0, 1900.0)]
    gap = silence(2.0)
    x = joined(gap, sounds[0], gap, sounds[1], gap, sounds[2])
    windows = windows_of(x, most=RATE_HZ, sample_rate_hz=RATE_HZ)
    sound = sound_of(x, RATE_HZ)
    assert len(windows) == round(sound_s(sound)) == 3
    together = torch.cat([one.samples for one in windows])
    kept = x[torch.from_numpy(sound)]
    assert len(kept) - len(together) < len(windows)
    assert windows[0].start_s == pytest.approx(2.0, abs=SLACK_S)
    for one in windows:
        start = round(one.start_s * RATE_HZ)
        assert sound[start]
        assert one.samples[0] == x[start]
    # the second window starts within the first sound or the second, never in the gap
    assert windows[1].start_s < 3 + SLACK_S or windows[1].start_s > 5 - SLACK_S


def test_a_view_of_the_input_stays_as_it_was(speech):
    x = joined(silence(1.0), speech)
    before = x.clone()
    for one in windows_of(x, most=8000, sample_rate_hz=RATE_HZ):
        assert one.samples.dtype == x.dtype
    assert torch.equal(x, before)


@pytest.mark.parametrize("shape", [(0,), (2, 100), (1, 1, 4)])
def test_other_shapes_are_refused(shape):
    for call in (
        lambda x: sound_of(x, RATE_HZ),
        lambda x: windows_of(x, most=10, sample_rate_hz=RATE_HZ),
    ):
        with pytest.raises(InputError, match="expected \\(N,\\) of one channel"):
            call(torch.zeros(shape))


@pytest.mark.parametrize("most", [0, -5])
def test_a_window_without_length_is_refused(most):
    with pytest.raises(InputError, match=f"window of {most} samples .* at least 1"):
        windows_of(torch.zeros(10), most=most, sample_rate_hz=RATE_HZ)


@pytest.mark.parametrize("where", ["before", "after", "within"])
@pytest.mark.parametrize("seconds", [1.0, 10.0])
def test_long_silence_is_left_out_of_a_voice(where, seconds, speech):
    half = len(speech) // 2
    gap = silence(seconds)
    x = {
        "before": joined(gap, speech),
        "after": joined(speech, gap),
        "within": joined(speech[:half], gap, speech[half:]),
    }[where]
    assert torch.equal(voice_of(x, RATE_HZ), joined(speech))
    # faint hiss instead of exact silence: left out where there is more of it than sound
    hissing = voice_of(joined(speech, silence(seconds, rms=1e-4)), RATE_HZ)
    assert (len(hissing) < len(speech) + RATE_HZ / 4) == (seconds > 2)


def test_pauses_belong_to_a_voice(speech):
    half = len(speech) // 2
    x = joined(speech[:half], silence(0.4), speech[half:], silence(0.3))
    assert voice_of(x, RATE_HZ) is x
    zeros = torch.zeros(RATE_HZ)
    assert voice_of(zeros, RATE_HZ) is zeros


def test_hiss_hum_and_tones_are_no_speech(speech, tone):
    rng = np.random.default_rng(0)

    def speaks(x: np.ndarray) -> bool:
        samples = torch.from_numpy(np.asarray(x, dtype=np.float32))
        return has_speech(samples, RATE_HZ, sound_of(samples, RATE_HZ))

    noise = rng.standard_normal(len(speech))
    assert not speaks(0.05 * noise)
    assert not speaks(tone(2.0))
    assert not speaks(np.r_[np.zeros(RATE_HZ), tone(1.0, frequency_hz=50.0)])
    assert not speaks(np.zeros(RATE_HZ))
    assert speaks(speech)
    assert speaks(speech + speech.std() * noise)
