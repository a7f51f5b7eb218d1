"""What anybody can do to an attacked file to hide the attack, without knowing the detector.

docs/results/detection.md counts this on many files and models.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from nip_audio.audio.io import read_audio, write_audio
from nip_audio.audio.manifest import Recording
from nip_audio.screening import changes
from nip_audio.screening.pipeline import Screener

RATE = 16_000
ATTACKED = ("alba/alba-3.flac", "clara/clara-2.flac")
CLEAN = "edith/edith-1.flac"

Samples = NDArray[np.float64]


def cut_apart(clip: Samples) -> Samples:
    half = RATE // 2
    parts = [clip[i : i + half] for i in range(0, len(clip), half)]
    return np.concatenate([np.concatenate([part, np.zeros(half)]) for part in parts])


def silence(clip: Samples, before_s: float, after_s: float, rms: float = 0.0) -> Samples:
    rng = np.random.default_rng(0)
    around = [rms * rng.standard_normal(round(RATE * seconds)) for seconds in (before_s, after_s)]
    return np.concatenate([around[0], clip, around[1]])


EVASIONS: dict[str, Callable[[Samples], Samples]] = {
    "nothing": lambda x: x,
    "0.25 s of silence around": lambda x: silence(x, 0.25, 0.25),
    "2 s of silence appended": lambda x: silence(x, 0.0, 2.0),
    "20 s of silence before": lambda x: silence(x, 20.0, 0.0),
    "3 s of faint hiss appended": lambda x: silence(x, 0.0, 3.0, 0.0003),
    "silence after each half second": cut_apart,
    "gain 0.3": lambda x: 0.3 * x,
    "limiter": lambda x: changes.limit_peaks(x, share=0.05, soft=True),
    "22.05 kHz and back": lambda x: changes.resample_to(x, rate_hz=RATE, to_hz=22_050),
    "MP3": lambda x: changes.code(x, codec="mp3", rate_hz=RATE),
    "noise at 40 dB": lambda x: changes.add_noise(x, np.random.default_rng(0), snr_db=40),
}


@pytest.fixture(scope="module")
def shipped(pretrained) -> Screener:
    return Screener.from_pretrained(pretrained)


def judged(screener: Screener, samples: Samples, path):
    write_audio(path, torch.from_numpy(samples.clip(-1, 1)).float(), RATE)
    (record,) = screener.judge_files([Recording("changed", path)])
    return record


@pytest.mark.parametrize("name", EVASIONS)
def test_what_hides_an_attack_leaves_no_clean_file(shipped, request, tmp_path, name):
    for place, file in enumerate(ATTACKED):
        attacked = read_audio(request.config.rootpath / "examples/enrolment" / file)
        samples = EVASIONS[name](attacked.samples.double().numpy())
        record = judged(shipped, samples, tmp_path / f"{place}.wav")
        assert record.verdict != "clean", (file, record.distance, record.distance_threshold)


@pytest.mark.parametrize("name", ["nothing", "2 s of silence appended", "gain 0.3", "MP3"])
def test_the_same_done_to_a_clean_file_is_no_attack(shipped, request, tmp_path, name):
    clean = read_audio(request.config.rootpath / "examples/enrolment" / CLEAN)
    samples = EVASIONS[name](clean.samples.double().numpy())
    assert judged(shipped, samples, tmp_path / "clean.wav").verdict == "clean"
