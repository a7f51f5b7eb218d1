from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from nip_audio import WaveformAdapter
from nip_audio.audio.manifest import walk_audio, walk_files
from nip_audio.errors import InputError
from nip_audio.image.adapter import ImageAdapter
from nip_audio.purifiers.guided_training import GuidedSettings
from nip_audio.purifiers.nip_pool import PoolSettings
from nip_audio.workflows.clean_data import CleanItems, read_benign
from nip_audio.workflows.fit import fit_guided, fit_neurons, fit_pool


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_clips_are_read_once_each_and_bad_ones_are_listed(clean_folder, tmp_path, write_sound):
    recordings = list(walk_audio(clean_folder))
    bad = write_sound("bad/silence.wav", np.zeros(16000, np.float32))
    recordings += [*recordings[:3], *walk_audio(bad.parent)]
    clips = read_benign(recordings, WaveformAdapter())
    assert len(clips.levels) == len(clips.contents) == len(set(clips.contents)) == 32
    assert [failure.code for failure in clips.failures] == ["silent"]


def test_enough_is_enough(clean_folder):
    clips = read_benign(walk_audio(clean_folder), WaveformAdapter(), most=10.0)
    assert len(clips.levels) == 10


def test_too_few_are_refused(clean_folder):
    with pytest.raises(InputError, match="4 usable recordings"):
        read_benign(list(walk_audio(clean_folder))[:4], WaveformAdapter())


def test_crops_are_pieces_of_the_clips():
    clips = CleanItems(
        (torch.arange(100, dtype=torch.int16),) * 8, 2**15, tuple("abcdefgh"), (), 10
    )
    batch = clips.draw(seeded(), items=20)
    assert batch.x.shape == (20, 10)
    steps = (batch.x * 2**15).diff(dim=1)
    assert torch.equal(steps, torch.ones(20, 9))
    assert len(set(batch.x[:, 0].tolist())) > 5
    # a short recording is repeated
    longer = replace(clips, crop=250).draw(seeded(), items=4).x
    assert torch.equal(longer[:, :150], longer[:, 100:])


def test_senseless_numbers_are_refused(pretrained):
    crops = CleanItems((torch.zeros(100, dtype=torch.int16),) * 8, 2**15, tuple("abcdefgh"), (), 50)
    with pytest.raises(InputError, match="0 samples, expected at least 1"):
        replace(crops, crop=0)
    with pytest.raises(InputError, match="batch_size is 1, expected ≥ 2"):
        fit_guided(pretrained, crops, GuidedSettings(steps=1), batch_size=1)
    with pytest.raises(InputError, match="number of items 0, expected at least 1"):
        fit_pool(pretrained, crops, PoolSettings(), candidates=0)
    with pytest.raises(InputError, match="batch_size is 0"):
        fit_neurons(pretrained, crops, batch_size=0)


def test_what_was_seen_is_kept(pretrained, clean_folder):
    clips = read_benign(walk_audio(clean_folder), WaveformAdapter(), crop_s=0.5)
    purifier = fit_guided(pretrained, clips, GuidedSettings(steps=1, width=4), batch_size=2)
    assert purifier.seen == set(clips.contents)
    assert purifier.training["layers"] == list(pretrained.card.default_taps)


@pytest.fixture
def pictures(tmp_path):
    """Nine pictures of two kinds, one of them a copy of another, and one that is none."""
    adapter = ImageAdapter(1, 4, 4)
    for i in range(9):
        path = tmp_path / "pictures" / str(i % 2) / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        adapter.save(torch.full((1, 4, 4), min(i, 7) / 255), path)
    (tmp_path / "pictures" / "0" / "bad.png").write_bytes(b"no picture")
    return list(walk_files(tmp_path / "pictures", adapter.suffixes))


def test_pictures_are_read_once_each_and_drawn_as_they_are(pictures):
    read = read_benign(pictures, ImageAdapter(1, 4, 4))
    assert sorted(int(levels[0, 0, 0]) for levels in read.levels) == list(range(8))
    assert len(set(read.contents)) == 8
    assert [failure.code for failure in read.failures] == ["not_a_picture"]
    batch = read.draw(seeded(), items=50)
    assert batch.x.shape == (50, 1, 4, 4)
    assert set((batch.x * 255).flatten().tolist()) == set(range(8))
    assert torch.equal(batch.x, read.draw(seeded(), items=50).x)


def test_too_few_pictures_are_refused_and_too_many_left_unread(pictures):
    with pytest.raises(InputError, match=r"7 usable images \(1 failed\)"):
        read_benign(pictures, ImageAdapter(1, 4, 4), most=7)
    with pytest.raises(InputError, match="5 usable images"):
        read_benign(pictures[:5], ImageAdapter(1, 4, 4))
    assert len(read_benign(pictures, ImageAdapter(1, 4, 4), most=8).levels) == 8
