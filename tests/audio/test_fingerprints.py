"""Copies of a recording share codes whatever was done to them; other recordings do not."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
import soxr
import torch

from nip_audio.audio import fingerprints
from nip_audio.audio.fingerprints import alike, fingerprint_of, in_common_band
from nip_audio.screening import changes
from nip_audio.screening.duplicates import correlation_peak

RATE_HZ = 16_000


def telephone(x: np.ndarray) -> np.ndarray:
    narrow = soxr.resample(soxr.resample(x, RATE_HZ, 8000), 8000, RATE_HZ)
    spectrum = np.fft.rfft(narrow)
    spectrum[: round(300 * len(narrow) / RATE_HZ)] = 0
    return np.fft.irfft(spectrum, len(narrow))


def low_pass(x: np.ndarray) -> np.ndarray:
    spectrum = np.fft.rfft(x)
    spectrum[round(2500 * len(x) / RATE_HZ) :] = 0
    return np.fft.irfft(spectrum, len(x))


COPIES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "equal": lambda x: x,
    "quieter, with an offset": lambda x: 0.1 * x + 0.004,
    "inverted": lambda x: -x,
    "cut by 8 ms": lambda x: x[128:],
    "cut by 0.3 s": lambda x: x[4800:-2000],
    "telephone": telephone,
    "telephone, cut": lambda x: telephone(x[4800:]),
    "low-pass": low_pass,
    "MP3": lambda x: changes.code(x, codec="mp3", rate_hz=RATE_HZ),
    "noise": lambda x: changes.add_noise(x, np.random.default_rng(0), snr_db=20),
}


@pytest.fixture(scope="module")
def speech(request) -> list[np.ndarray]:
    from nip_audio.audio.io import read_audio

    files = sorted((request.config.rootpath / "examples/enrolment").glob("*/*.flac"))[::3]
    return [read_audio(file).samples.double().numpy() for file in files]


def prints(*sounds: np.ndarray) -> list[np.ndarray]:
    return [fingerprint_of(torch.from_numpy(np.ascontiguousarray(x)), RATE_HZ) for x in sounds]


@pytest.mark.parametrize("name", COPIES)
def test_a_copy_is_found_among_others(speech, name):
    copies = [COPIES[name](x) for x in speech]
    found = alike(prints(*speech, *copies), np.arange(2 * len(speech)))
    assert found == [(i, i + len(speech)) for i in range(len(speech))]
    for one, two in zip(speech, copies, strict=True):
        bands = (in_common_band(x, RATE_HZ) for x in (one, two))
        assert correlation_peak(*bands) > 0.8


def test_other_recordings_are_not_alike(speech):
    assert alike(prints(*speech), np.arange(len(speech))) == []


def test_copies_of_one_owner_are_not_compared(speech):
    assert alike(prints(speech[0], speech[0]), np.zeros(2, int)) == []
    assert alike(prints(speech[0], speech[0]), np.arange(2)) == [(0, 1)]


def test_silence_and_what_is_too_short_have_no_codes():
    assert not fingerprint_of(torch.zeros(RATE_HZ), RATE_HZ).any()
    assert len(fingerprint_of(torch.randn(1000), RATE_HZ)) == 0
    assert alike([np.zeros(0, np.uint32)] * 2, np.arange(2)) == []
    assert alike([], np.arange(0)) == []
    assert alike([np.zeros(90, np.uint32)] * 2, np.arange(2)) == []


def test_codes_that_many_share_tell_nothing():
    many = [np.arange(1, 30, dtype=np.uint32)] * 100
    assert alike(many, np.arange(100)) == []


def shared_most(one: np.ndarray, two: np.ndarray) -> int:
    """Count the codes that two recordings share at the best distance, pair by pair."""
    places = [(i - j) for i, a in enumerate(one) for j, b in enumerate(two) if a == b and a]
    return max(np.unique(places, return_counts=True)[1], default=0)


@pytest.mark.parametrize("block", [1, 90, 1 << 12])
def test_what_is_found_does_not_depend_on_the_blocks(monkeypatch, block):
    monkeypatch.setattr(fingerprints, "_BLOCK", block)
    rng = np.random.default_rng(0)
    many = [rng.integers(0, 120, rng.integers(0, 60)).astype(np.uint32) for _ in range(24)]
    owners = np.arange(24) // 3
    monkeypatch.setattr(fingerprints, "_MOST_COMMON", 1000)
    expected = set()
    for i, one in enumerate(many):
        shared = [
            0 if owners[i] == owners[j] else shared_most(one, two) for j, two in enumerate(many)
        ]
        if max(shared) >= 4:
            expected.add((min(i, int(np.argmax(shared))), max(i, int(np.argmax(shared)))))
    assert expected
    assert set(alike(many, owners)) == expected


def test_memory_grows_with_the_recordings_and_not_with_their_pairs():
    peaks = []
    for count in (1024, 4096):
        many = [np.arange(1, 65, dtype=np.uint32) + 64 * (i // 60) for i in range(count)]
        tracemalloc.start()
        found = alike(many, np.arange(count))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert len(found) == count - -(-count // 60)
    # 60 pairs a code and 8 bytes a pair would add 94 MB
    assert peaks[1] - peaks[0] < 40 * 64 * 3072
