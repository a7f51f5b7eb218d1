from __future__ import annotations

import pytest
import torch

from nip_audio.audio.adapter import WaveformAdapter
from nip_audio.audio.io import ReadSettings
from nip_audio.errors import AudioError, OutputError


def test_load_and_collate_pad_and_name_by_content(write_sound, tone):
    adapter = WaveformAdapter()
    items = [
        adapter.load(write_sound("a.wav", tone(0.6))),
        adapter.load(write_sound("b.wav", tone(1.0))),
    ]
    batch = adapter.collate(items)
    assert batch.x.shape == (2, 16000)
    assert batch.lengths.tolist() == [9600, 16000]
    assert batch.ids == tuple(i.sha256 for i in items)


def test_settings_are_obeyed(write_sound):
    with pytest.raises(AudioError, match="expects 8000 Hz"):
        WaveformAdapter(ReadSettings(8000, resample=False)).load(write_sound())


def test_project_keeps_to_eps_and_bounds():
    reference = torch.tensor([0.0, 0.95, -0.95, 0.0])
    x = torch.tensor([0.5, 2.0, -2.0, 0.05])
    got = WaveformAdapter().project(x, reference, 0.1)
    torch.testing.assert_close(got, torch.tensor([0.1, 1.0, -1.0, 0.05]))
    assert x.tolist() == [0.5, 2.0, -2.0, pytest.approx(0.05)]


def test_save_writes_what_load_reads(tmp_path, tone):
    adapter = WaveformAdapter()
    samples = torch.from_numpy(tone())
    adapter.save(samples, tmp_path / "a.wav")
    torch.testing.assert_close(
        adapter.load(tmp_path / "a.wav").samples, samples, atol=0.5 / 32768, rtol=0
    )
    with pytest.raises(OutputError, match="exists already"):
        adapter.save(samples, tmp_path / "a.wav")
