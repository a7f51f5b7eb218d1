"""Speech, its level, the noise beside it and inserted silence."""

from __future__ import annotations

import builtins
from pathlib import Path

import numpy as np
import pytest
import torch

from nip_audio.audio import speech as module
from nip_audio.audio.io import read_audio
from nip_audio.audio.speech import estimate_snr_db, find_speech, level_dbfs, silence_s
from nip_audio.errors import InputError, MissingDependencyError

RATE_HZ = 16000
SPOKEN = Path(__file__).parents[2] / "examples/enrolment/alba/alba-1.flac"


def noise(seconds: float, rms: float, seed: int = 0) -> np.ndarray:
    return rms * np.random.default_rng(seed).standard_normal(round(seconds * RATE_HZ))


def spoken_and_pauses(snr_db: float, *, pause_s: float = 1.0):
    """Noise of RMS 0.1 for 2 s between two pauses of the same background, and the mask of it."""
    background = noise(2 + 2 * pause_s, 0.1 * 10 ** (-snr_db / 20), 1)
    start = round(pause_s * RATE_HZ)
    mask = np.zeros(len(background), dtype=bool)
    mask[start : start + 2 * RATE_HZ] = True
    background[mask] += noise(2, 0.1, 2)
    return torch.from_numpy(background).float(), mask


@pytest.mark.parametrize("snr_db", [0, 5, 10, 20, 40])
def test_the_estimated_ratio_is_that_of_white_noise(snr_db):
    samples, mask = spoken_and_pauses(snr_db)
    # 80 frames of 320 samples: the median of their powers varies by 1 %, far below a decibel
    assert estimate_snr_db(samples, RATE_HZ, mask) == pytest.approx(snr_db, abs=0.5)


def test_a_click_in_a_pause_does_not_count_as_noise():
    samples, mask = spoken_and_pauses(30)
    samples[1000:1010] = 0.9
    assert estimate_snr_db(samples, RATE_HZ, mask) == pytest.approx(30, abs=0.5)


@pytest.mark.parametrize("pause_s", [0.15, 0.18])
def test_without_enough_pause_the_quietest_tenth_is_the_noise(pause_s):
    # a tenth of a second beside speech is left out of each of two pauses: less than 0.2 s stay
    samples, mask = spoken_and_pauses(20, pause_s=pause_s)
    assert estimate_snr_db(samples, RATE_HZ, mask) == pytest.approx(20, abs=1.0)


def test_steady_noise_that_passes_for_speech_has_no_ratio_to_speak_of():
    everything = np.ones(2 * RATE_HZ, dtype=bool)
    assert estimate_snr_db(torch.from_numpy(noise(2, 0.1)), RATE_HZ, everything) < 0


def test_digital_silence_is_no_quiet_room():
    samples, mask = spoken_and_pauses(20)
    samples[~torch.from_numpy(mask)] = 0.0
    assert estimate_snr_db(samples, RATE_HZ, mask) < 0  # what is left has no quiet part


def test_there_is_no_ratio_and_no_level_without_speech():
    samples, nothing = torch.from_numpy(noise(2, 0.1)), np.zeros(2 * RATE_HZ, dtype=bool)
    assert estimate_snr_db(samples, RATE_HZ, nothing) is None
    assert level_dbfs(samples, nothing) is None


def test_the_level_is_that_of_the_speech_alone():
    samples, mask = spoken_and_pauses(60)
    assert level_dbfs(samples, mask) == pytest.approx(-20, abs=0.1)


def test_a_mask_of_another_length_is_refused():
    with pytest.raises(InputError, match=r"expected \(N,\) twice"):
        level_dbfs(torch.zeros(10), np.zeros(9, dtype=bool))


def test_the_longest_silence_inside_counts():
    x = noise(4, 0.1)
    x[5000:9000] = 0.0
    x[20000:21000] = 0.0
    assert silence_s(torch.from_numpy(x), RATE_HZ) == 4000 / RATE_HZ


def test_padding_is_no_silence_inside():
    x = np.concatenate([np.zeros(RATE_HZ), noise(1, 0.1), np.zeros(RATE_HZ)])
    assert silence_s(torch.from_numpy(x), RATE_HZ) < 0.001
    assert silence_s(torch.zeros(RATE_HZ), RATE_HZ) == 0.0


@pytest.mark.parametrize("rate_hz", [8000, 16000, 22050])
def test_speech_is_found_at_any_rate(rate_hz):
    import soxr

    samples = read_audio(SPOKEN).samples.numpy()
    x = torch.from_numpy(soxr.resample(samples, RATE_HZ, rate_hz))
    threads = torch.get_num_threads()
    found = find_speech(x, rate_hz)
    assert found.shape == (len(x),)
    assert found.sum() / rate_hz == pytest.approx(3.3, abs=0.2)
    assert torch.get_num_threads() == threads


def test_speech_is_found_at_any_level():
    samples = read_audio(SPOKEN).samples
    quiet, loud = (float(find_speech(x, RATE_HZ).sum()) for x in (0.01 * samples, samples))
    assert quiet == pytest.approx(loud, abs=0.1 * RATE_HZ)  # rounding may move a border


def test_a_tone_is_no_speech(tone):
    assert not find_speech(torch.from_numpy(tone(3.0)), RATE_HZ).any()


def test_without_silero_one_error_says_what_to_install(monkeypatch):
    real = builtins.__import__

    def missing(name, *args, **kwargs):
        if name == "silero_vad":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    module._silero.cache_clear()
    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(MissingDependencyError, match=r"pip install '.\[gate\]'"):
        find_speech(torch.zeros(RATE_HZ), RATE_HZ)
