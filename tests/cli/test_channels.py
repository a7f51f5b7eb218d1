"""``--channel`` chooses the channel that a command hears."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from nip_audio.audio.io import read_audio


@pytest.fixture
def two_speakers(voice, tmp_path) -> Path:
    """A recording with speaker 1 in the first channel and speaker 4 in the second."""
    path = tmp_path / "two.wav"
    soundfile.write(path, np.stack([voice(1, 20), voice(4, 20)], axis=1), 16000, "PCM_16")
    return path


@pytest.fixture
def known(calibration, tmp_path) -> Path:
    calibration.save(tmp_path / "quick.calibration")
    return tmp_path / "quick.calibration"


@pytest.mark.parametrize(("channel", "speaker"), [(1, "s1"), (2, "s4")])
def test_a_channel_is_identified_and_verified(run, two_speakers, enrolment, channel, speaker):
    options = ["--enrolment", enrolment, "--threshold", "0.0", "--channel", channel, "--json"]
    code, out, _ = run("identify", two_speakers, "--model", "xvector-libri251", *options)
    (found,) = json.loads(out)
    assert (code, found["speaker"]) == (0, speaker)
    assert found["changes"] == [f"channel {channel} of 2 taken"]
    code, out, _ = run("verify", two_speakers, "--speaker", speaker, *options)
    verified = json.loads(out)
    assert (code, verified["accepted"]) == (0, True)
    assert verified["cosine"] == pytest.approx(found["candidates"][0]["cosine"], abs=1e-5)
    assert verified["changes"] == found["changes"]


def test_what_was_averaged_is_said(run, two_speakers, enrolment):
    options = ["--enrolment", enrolment, "--threshold", "0.0", "--speaker", "s1"]
    _, _, err = run("verify", two_speakers, *options)
    assert f"{two_speakers}: 2 channels averaged, which differ" in err
    _, _, err = run("verify", two_speakers, *options, "--channel", 2)
    assert f"{two_speakers}: channel 2 of 2 taken" in err


@pytest.mark.parametrize("channel", [1, 2])
def test_a_channel_is_screened_and_copied(run, two_speakers, known, tmp_path, channel):
    given = ["--calibration", known, "--fpr", "0.05", "--channel", channel]
    folder = tmp_path / "in" / "ann"
    folder.mkdir(parents=True)
    two_speakers = two_speakers.rename(folder / "two.wav")
    run("screen", folder.parent, "--out", tmp_path / "run", *given)
    (record,) = map(json.loads, (tmp_path / "run/results.jsonl").read_text().splitlines())
    assert record["changes"][0] == f"channel {channel} of 2 taken"
    assert record["channels"] == 2
    _, out, _ = run("detect", two_speakers, *given, "--json")
    (detected,) = json.loads(out)
    assert detected["distance"] == record["distance"]
    code, _, _ = run("purify", two_speakers, "--out", tmp_path / "pure", "--channel", channel)
    assert code == 0
    (pure,) = (tmp_path / "pure").rglob("*.wav")
    heard = soundfile.read(two_speakers, dtype="float32")[0][:, channel - 1]
    correlation = np.corrcoef(read_audio(pure).samples.numpy()[: len(heard)], heard)[0, 1]
    assert correlation > 0.8


def test_another_channel_is_another_run(run, two_speakers, known, tmp_path):
    given = ["--calibration", known, "--fpr", "0.05", "--out", tmp_path / "run"]
    folder = tmp_path / "in" / "ann"
    folder.mkdir(parents=True)
    two_speakers.rename(folder / "two.wav")
    assert run("screen", folder.parent, *given, "--channel", 1)[0] in (0, 3)
    code, _, err = run("screen", folder.parent, *given, "--channel", 2)
    assert code == 65
    assert "channel" in err


def test_a_channel_that_is_not_there_is_that_files_error(run, two_speakers, known):
    code, out, _ = run("detect", two_speakers, "--calibration", known, "--channel", 3, "--json")
    (record,) = json.loads(out)
    assert (code, record["verdict"], record["error"]["code"]) == (4, "error", "channels")
    assert "choose one from 1 to 2" in record["error"]["remedy"]
    assert run("detect", two_speakers, "--calibration", known, "--channel", 0)[0] == 64


def test_images_have_no_channel_to_choose(run, picture_model, pictures):
    code, _, err = run("identify", pictures / "00.png", "--model", picture_model, "--channel", 1)
    assert code == 65
    assert "--channel" in err
