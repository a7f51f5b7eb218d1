from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch

from nip_audio.audio.io import ReadSettings, read_audio
from nip_audio.audio.manifest import Recording
from nip_audio.core.adapter import Batch
from nip_audio.errors import InputError
from nip_audio.evaluation.identification import (
    WHITE_NOISES,
    Crop,
    accuracy,
    correct_crops,
    read_crops,
)
from nip_audio.models.cards import ModelCard


class LoudestHalf:
    """Names "early" or "late", by the half of the recording with more energy."""

    def predict(self, batch: Batch) -> torch.Tensor:
        energy = batch.x.square()
        half = energy.shape[1] // 2
        return (energy[:, half:].sum(1) > energy[:, :half].sum(1)).long()


@pytest.fixture
def two_speakers():
    training = {"seen": ["a" * 64]}
    data = {"labels": ["early", "late"], "name": "toy", "training": training}
    card = ModelCard(Path(), data)
    return SimpleNamespace(card=card, model=LoudestHalf())


def crop(speaker: str, loud_half: int, sha256: str = "b" * 64) -> Crop:
    samples = torch.full((1000,), 1e-4)
    samples[500 * loud_half : 500 * loud_half + 500] = 1e-2
    return Crop(Recording("r", "r.wav", speaker), samples, sha256)


def test_reads_and_cuts(tmp_path, voice):
    path = tmp_path / "a.wav"
    soundfile.write(path, voice(0, 0, 1.3), 16000)
    audio = read_audio(path)
    crops = read_crops([Recording("a", path, "s")], ReadSettings(), crop_s=0.5)
    assert [(c.speaker, len(c.samples)) for c in crops] == [("s", 8000), ("s", 8000)]
    assert torch.cat([c.samples for c in crops]).equal(audio.samples[:16000])
    assert crops[0].content_sha256 == audio.content_sha256
    whole = read_crops([Recording("a", path, "s")], ReadSettings())
    assert whole[0].samples.equal(audio.samples)


def test_hits_by_hand(two_speakers):
    crops = [crop("early", 0), crop("late", 1), crop("late", 0)]
    right = correct_crops(two_speakers, crops, WHITE_NOISES["clean"], generator=torch.Generator())
    assert right.tolist() == [1, 1, 0]
    # noise a hundred times louder than the voice leaves a coin toss
    many = [crop("early", 0)] * 200
    generator = torch.Generator().manual_seed(0)
    noisy = correct_crops(two_speakers, many, lambda x: torch.tensor(1.0), generator=generator)
    assert 0.3 < noisy.mean() < 0.7


def test_noise_levels():
    x = torch.tensor([0.3, -0.3])
    assert [round(float(level(x)), 6) for level in WHITE_NOISES.values()] == [0, 0.002, 0.03]


def test_refuses_strangers_nothing_and_what_was_trained_on(two_speakers):
    for crops in ([crop("nobody", 0)], []):
        with pytest.raises(InputError, match="give recordings of its own speakers"):
            correct_crops(two_speakers, crops, WHITE_NOISES["clean"], generator=torch.Generator())
    with pytest.raises(InputError, match="1 test items were seen when the toy was fitted"):
        correct_crops(
            two_speakers,
            [crop("early", 0, "a" * 64)],
            WHITE_NOISES["clean"],
            generator=torch.Generator(),
        )


def test_accuracy_resamples_speakers():
    crops = [crop("early", 0)] * 50 + [crop("late", 0)] * 50
    right = np.r_[np.ones(50), np.zeros(50)]
    interval = accuracy(right, crops, seed=0)
    # of two speakers, one always right and one always wrong, a resample may hold either alone
    assert (interval.value, interval.low, interval.high) == (0.5, 0.0, 1.0)
