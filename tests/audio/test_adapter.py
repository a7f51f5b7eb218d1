from __future__ import annotations

import pytest
import torch

from nip_audio.audio.adapter import WaveformAdapter
from nip_audio.audio.io import ReadSettings
from nip_audio.errors import AudioError, OutputError


def test_settings_are_obeyed(write_sound):
    with pytest.raises(AudioError, match="expects 8000 Hz"):
        WaveformAdapter(ReadSettings(8000, resample=False)).load(write_sound())


def test_save_writes_what_load_reads(tmp_path, tone):
    adapter = WaveformAdapter()
    samples = torch.from_numpy(tone())
    adapter.save(samples, tmp_path / "a.wav")
    torch.testing.assert_close(
        adapter.load(tmp_path / "a.wav").samples, samples, atol=0.5 / 32768, rtol=0
    )
    with pytest.raises(OutputError, match="exists already"):
        adapter.save(samples, tmp_path / "a.wav")
