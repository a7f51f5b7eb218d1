"""Samples are brought to full scale, offsets removed, and what was cut off is counted."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile

from nip_audio.audio.io import read_audio
from nip_audio.audio.levels import ClippingMeter, to_full_scale
from nip_audio.errors import AudioError
from nip_audio.screening.recordings import CLIPPED_SHARE, Recordings


def clipped(samples: np.ndarray, rate_hz: int = 16000, blocks: int = 1) -> float:
    meter = ClippingMeter(1, rate_hz)
    for block in np.array_split(samples.astype(np.float32)[:, None], blocks):
        meter.add(block)
    (share,) = meter.shares
    return share


def cut_off(samples: np.ndarray, share: float, level: float) -> np.ndarray:
    limit = np.quantile(np.abs(samples), 1 - share)
    return (samples.clip(-limit, limit) / limit * level).astype(np.float32)


@pytest.mark.parametrize("blocks", [1, 7])
@pytest.mark.parametrize("level", [1.0, 0.98, 0.3, 0.05])
@pytest.mark.parametrize("share", [0.2, 0.03])
def test_clipping_is_found_at_any_level(voice, level, share, blocks):
    loud = cut_off(voice(2, 0), share, level)
    assert clipped(loud, blocks=blocks) == pytest.approx(share, rel=0.5)
    assert clipped(-loud + 0.02, blocks=blocks) == pytest.approx(share, rel=0.5)


@pytest.mark.parametrize("rate_hz", [8000, 16000, 48000])
@pytest.mark.parametrize("frequency_hz", [50.0, 440.0])
def test_the_tops_of_tones_and_voices_are_not_cut_off(rate_hz, frequency_hz, voice):
    time_s = np.arange(2 * rate_hz) / rate_hz
    tone = 0.9 * np.sin(2 * np.pi * frequency_hz * time_s)
    assert clipped(np.round(tone * 32768) / 32768, rate_hz) < CLIPPED_SHARE
    assert clipped(voice(2, 0)) == 0.0
    assert clipped(np.zeros(100)) == clipped(np.full(100, 0.5)) == clipped(np.zeros(0)) == 0.0


def test_a_recording_that_was_cut_off_is_damaged_or_an_error(write_sound, voice, screener):
    some = write_sound("some.wav", cut_off(voice(1, 10), 0.03, 0.5))
    audio = read_audio(some)
    assert 0.015 < audio.clipped_share < 0.05
    kind = Recordings(screener.adapter)
    details, calibration = kind.details(), screener.judge.calibration
    (finding,) = kind.damage(details, kind.facts(audio), calibration)
    assert finding.risk == "damaged"
    assert "of its samples are cut off at the highest level" in finding.why
    with pytest.raises(AudioError, match="of its samples are cut off") as caught:
        read_audio(write_sound("most.wav", cut_off(voice(1, 10), 0.2, 0.98)))
    assert caught.value.code == "clipped"


@pytest.mark.parametrize("offset", [0.02, -0.05, 0.006])
def test_an_offset_is_removed_and_said(write_sound, voice, offset):
    clean = voice(1, 0)
    got = read_audio(write_sound(samples=clean + offset, subtype="FLOAT"))
    np.testing.assert_allclose(got.samples, clean - clean.mean(), atol=1e-6)
    share = clean.mean() + offset
    assert got.changes == (f"a constant offset of {share:.1%} of full scale removed",)


def test_a_small_offset_stays(write_sound, voice):
    clean = voice(1, 0) + 0.004
    got = read_audio(write_sound(samples=clean, subtype="FLOAT"))
    np.testing.assert_array_equal(got.samples, clean)
    assert got.changes == ()


@pytest.mark.parametrize(
    ("scale", "change"),
    [
        (32768.0, "the scale of 16 bits: divided by 32768"),
        (8388608.0, "the scale of 24 bits: divided by 8388608"),
        (2147483648.0, "the scale of 32 bits: divided by 2147483648"),
    ],
)
def test_floats_on_the_scale_of_whole_numbers_are_divided_by_it(tmp_path, voice, scale, change):
    path = tmp_path / "a.wav"
    soundfile.write(path, voice(1, 0) * np.float32(scale), 16000, "FLOAT")
    got = read_audio(path)
    np.testing.assert_allclose(got.samples, voice(1, 0), atol=1e-7)
    assert change in got.changes[0]
    assert got.clipped_share == 0.0


def test_floats_beyond_full_scale_are_scaled_and_not_called_clipped(write_sound, voice):
    loud = voice(1, 0) / np.abs(voice(1, 0)).max() * 4
    got = read_audio(write_sound(samples=loud, subtype="FLOAT"))
    np.testing.assert_allclose(got.samples, loud / 4, atol=1e-6)
    assert got.changes == ("samples reach 4, full scale is 1: divided by it",)
    assert got.clipped_share == 0.0


def test_floats_of_no_known_scale_are_an_error(write_sound, voice):
    with pytest.raises(AudioError, match="which is no known scale; export it again") as caught:
        read_audio(write_sound(samples=voice(1, 0) * 1e20, subtype="FLOAT"))
    assert caught.value.code == "scale"


def test_all_signals_of_a_file_are_scaled_by_one_factor(voice):
    quiet, loud = voice(1, 0), 10 * voice(2, 0)
    (one, two), changes = to_full_scale([quiet, loud])
    assert np.abs(two).max() == pytest.approx(1.0)
    np.testing.assert_allclose(one / quiet, two[0] / loud[0], rtol=1e-5)
    assert len(changes) == 1
