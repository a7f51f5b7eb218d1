from __future__ import annotations

import pytest
import torch

from nip_audio.audio.io import ReadSettings, read_audio
from nip_audio.errors import AudioError, InputError
from nip_audio.speechbrain.waveforms import audio_of, split_batch

SETTINGS = ReadSettings()


def test_a_batch_is_cut_into_its_items():
    wavs = torch.arange(20.0, dtype=torch.float64).reshape(2, 10) / 20
    first, second = split_batch(wavs, torch.tensor([0.6, 1.0]))
    assert first.tolist() == pytest.approx(wavs[0, :6].tolist())
    assert second.tolist() == pytest.approx(wavs[1].tolist())
    assert first.dtype == torch.float32
    assert [len(w) for w in split_batch(wavs[0])] == [10]


@pytest.mark.parametrize(
    ("wavs", "lengths", "message"),
    [
        ([0.0], None, "wavs are <class 'list'>, expected floating"),
        (torch.zeros(2, 3, dtype=torch.int16), None, r"wavs are \(2, 3\) of torch.int16"),
        (torch.zeros(2, 3, 1), None, r"wavs are \(2, 3, 1\)"),
        (torch.zeros(0, 3), None, "at least one item"),
        (torch.zeros(2, 0), None, "at least one item and one sample"),
        (torch.full((1, 3), torch.nan), None, "NaN or infinity"),
        (torch.full((1, 3), 32000.0), None, "wavs reach 32000, expected full scale 1"),
        (torch.zeros(2, 3), torch.ones(3), "for 2 items, expected one in"),
        (torch.zeros(2, 3), torch.tensor([0.0, 1.0]), "for 2 items, expected one in"),
        (torch.zeros(2, 3), torch.tensor([1.0, 3.0]), "for 2 items, expected one in"),
        (torch.zeros(2, 3), torch.tensor([1.0, torch.nan]), "for 2 items, expected one in"),
    ],
)
def test_what_is_no_batch_is_an_error(wavs, lengths, message):
    with pytest.raises(InputError, match=message):
        split_batch(wavs, lengths)


def test_a_waveform_is_the_recording_that_its_file_would_be(write_sound):
    read = read_audio(write_sound(subtype="FLOAT"), SETTINGS)
    taken = audio_of(read.samples, SETTINGS)
    assert taken.content_sha256 == read.content_sha256 == taken.sha256
    assert taken.duration_s == read.duration_s


def test_samples_beyond_full_scale_are_cut_and_said():
    wav = 0.1 * torch.sin(torch.arange(16000.0))
    wav[100] = 1.5
    audio = audio_of(wav, SETTINGS)
    assert audio.samples.max() == 1.0
    assert audio.changes == ("1 samples beyond full scale clipped",)
    assert wav[100] == 1.5


@pytest.mark.parametrize(
    ("wav", "code"),
    [
        (torch.rand(100), "too_short"),
        (torch.rand(16000 * 121), "too_long"),
        (torch.full((16000,), 0.5), "silent"),
        (torch.rand(16000).round(), "clipped"),
    ],
)
def test_what_cannot_be_judged_has_a_code(wav, code):
    with pytest.raises(AudioError) as caught:
        audio_of(wav, SETTINGS, name="item 3")
    assert caught.value.code == code
    assert str(caught.value).startswith("item 3: ")
