from __future__ import annotations

import numpy as np
import pytest
import torch

from nip_audio import WaveformAdapter
from nip_audio.audio.manifest import walk_audio
from nip_audio.errors import InputError
from nip_audio.purification.fit import CleanClips, fit_guided, read_clips
from nip_audio.purifiers.guided_training import GuidedSettings


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_clips_are_read_once_each_and_bad_ones_are_listed(clean_folder, tmp_path, write_sound):
    recordings = list(walk_audio(clean_folder))
    bad = write_sound("bad/silence.wav", np.zeros(16000, np.float32))
    recordings += [*recordings[:3], *walk_audio(bad.parent)]
    clips = read_clips(recordings, WaveformAdapter())
    assert len(clips.samples) == len(clips.contents) == len(set(clips.contents)) == 32
    assert [failure.code for failure in clips.failures] == ["silent"]


def test_enough_is_enough(clean_folder):
    clips = read_clips(walk_audio(clean_folder), WaveformAdapter(), most_s=10.0)
    assert len(clips.samples) == 10


def test_too_few_are_refused(clean_folder):
    with pytest.raises(InputError, match="4 usable recordings"):
        read_clips(list(walk_audio(clean_folder))[:4], WaveformAdapter())


def test_crops_are_pieces_of_the_clips():
    clips = CleanClips((torch.arange(100, dtype=torch.int16),) * 8, tuple("abcdefgh"))
    batch = clips.draw(seeded(), items=20, crop_samples=10)
    assert batch.x.shape == (20, 10)
    steps = (batch.x * 2**15).diff(dim=1)
    assert torch.equal(steps, torch.ones(20, 9))
    assert len(set(batch.x[:, 0].tolist())) > 5
    # a short recording is repeated
    longer = clips.draw(seeded(), items=4, crop_samples=250).x
    assert torch.equal(longer[:, :150], longer[:, 100:])


@pytest.mark.parametrize("options", [{"crop_s": 0.0}, {"batch_size": 1}])
def test_senseless_crops_are_refused(pretrained, options):
    clips = CleanClips((torch.zeros(100, dtype=torch.int16),) * 8, tuple("abcdefgh"))
    with pytest.raises(InputError, match="expected > 0 and ≥ 2"):
        fit_guided(pretrained, clips, GuidedSettings(steps=1), **options)


def test_what_was_seen_is_kept(pretrained, clean_folder):
    clips = read_clips(walk_audio(clean_folder), WaveformAdapter())
    purifier = fit_guided(
        pretrained, clips, GuidedSettings(steps=1, width=4), crop_s=0.5, batch_size=2
    )
    assert purifier.seen == set(clips.contents)
    assert purifier.training["layers"] == list(pretrained.card.default_taps)
