from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hyperpyyaml import load_hyperpyyaml

from nip_audio.audio.manifest import walk_audio
from nip_audio.errors import AudioError, CalibrationError, InputError, ModelCardError, StateError
from nip_audio.screening.pipeline import Screener
from nip_audio.speechbrain.guard import Guard


def test_a_recipe_can_name_it(calibration, tmp_path):
    calibration.save(tmp_path / "my.calibration")
    guard = load_hyperpyyaml(
        "guard: !new:nip_audio.speechbrain.Guard\n"
        "  model: xvector-libri251\n"
        f"  calibration: {tmp_path / 'my.calibration'}\n"
        "  fpr: 0.05\n"
    )["guard"]
    assert isinstance(guard.screener, Screener)
    assert guard.pretrained.card.name == "xvector-libri251"
    assert guard.screener.judge.calibration.fingerprint == calibration.fingerprint
    assert guard.screener.judge.false_positive_rate == 0.05


def test_a_file_gets_the_verdict_that_detect_gives(guard, screener, folder):
    path = folder / "s1" / "take10.wav"
    (expected,) = screener.judge_files([r for r in walk_audio(folder) if r.path == path])
    record = guard.judge_file(path)
    assert replace(record, id="", speaker=None) == replace(expected, id="", speaker=None)
    assert record.id == str(path)


def test_a_batch_is_judged_as_its_items_alone(guard, voice):
    wavs = [torch.from_numpy(voice(s, 40, duration)) for s, duration in ((1, 1.0), (2, 0.75))]
    padded = torch.zeros(2, 16000)
    for row, wav in zip(padded, wavs, strict=True):
        row[: len(wav)] = wav
    together = guard.judge_waveforms(padded, torch.tensor([1.0, 0.75]), ids=("a", "b"))
    alone = tuple(guard.judge_waveforms(w, ids=(n,))[0] for w, n in zip(wavs, "ab", strict=True))
    assert together == alone
    assert [record.id for record in together] == ["a", "b"]


def test_an_unusable_item_is_a_record_and_the_others_are_judged(guard, voice):
    wavs = torch.stack([torch.zeros(16000), torch.from_numpy(voice(1, 11))])
    silent, heard = guard.judge_waveforms(wavs)
    assert (silent.verdict, silent.error["code"]) == ("error", "silent")
    assert heard.distance is not None


def test_what_was_tampered_with_is_flagged(guard, voice):
    wav = torch.from_numpy(voice(1, 11))
    noise = 0.01 * torch.randn(wav.shape, generator=torch.Generator().manual_seed(0))
    clean, noisy = guard.judge_waveforms(torch.stack([wav, wav + noise]))
    assert not clean.flagged
    assert noisy.flagged
    assert noisy.distance > clean.distance


def test_bad_input_is_an_error(guard, tmp_path):
    (tmp_path / "a.wav").write_bytes(b"RIFF")
    with pytest.raises(AudioError, match="not audio"):
        guard.judge_file(tmp_path / "a.wav")
    with pytest.raises(AudioError, match="does not exist"):
        guard.judge_file(tmp_path / "b.wav")
    with pytest.raises(InputError, match="got 1 ids for 2 waveforms"):
        guard.judge_waveforms(torch.rand(2, 16000), ids=("a",))


def test_what_cannot_guard_is_refused(pretrained, calibration, uncalibrated, tmp_path):
    with pytest.raises(ModelCardError, match="no model 'nobody'"):
        Guard("nobody", calibration)
    with pytest.raises(CalibrationError, match="comes without a calibration"):
        Guard(uncalibrated)
    with pytest.raises(CalibrationError, match="the calibration is of model"):
        Guard("resnet34-libri30", calibration)
    calibration.save(tmp_path / "a")
    with pytest.raises(StateError, match="model"):
        Guard("resnet34-libri30", tmp_path / "a")
    with pytest.raises(CalibrationError, match="false-positive rate"):
        Guard(pretrained, calibration, fpr=0.0001)


def test_the_shipped_model_guards_with_its_own_calibration(folder):
    guard = Guard()
    assert guard.screener.judge.calibration.sources
    assert guard.judge_file(folder / "s1" / "take10.wav").distance is not None
