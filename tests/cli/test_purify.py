from __future__ import annotations

import json

import pytest

from nip_audio.audio.io import read_audio
from nip_audio.audio.resynthesis import ROUNDS
from nip_audio.core.adapter import Bounds
from nip_audio.models.cards import ModelCard
from nip_audio.purifiers.inverse_net import InverseNet
from nip_audio.purifiers.nip_guided import GuidedNip

NOISE = ("--method", "noise", "--set", "snr_db=20")


@pytest.fixture
def recording(write_sound, voice):
    return write_sound("in/ann/[b]one.wav", voice(2, 3))


@pytest.fixture
def quick(calibration, tmp_path):
    path = tmp_path / "quick.calibration"
    calibration.save(path)
    return ("-c", path, "--fpr", "0.05")


@pytest.fixture
def guided(pretrained, tmp_path):
    path = tmp_path / "my.purifier"
    GuidedNip(InverseNet(width=4).eval(), bounds=Bounds(0.0, 1.0)).save(
        path, model_id=pretrained.model_id
    )
    return path


def test_writes_wav_and_sidecar_and_says_so(run, recording, quick, tmp_path):
    original = recording.read_bytes()
    out = tmp_path / "out"
    code, text, _ = run("purify", recording, "--out", out, *NOISE, *quick)
    assert code == 0
    value = json.loads((out / "[b]one.json").read_text())
    assert f"{out}/[b]one.wav: {value['before']['speaker']} " in text  # a name is no markup
    assert "SNR 20.0 dB" in text
    assert value["before"]["verdict"] in text
    assert value["purifier"] == {"name": "noise", "snr_db": 20}
    assert recording.read_bytes() == original
    assert sorted(p.name for p in out.iterdir()) == ["[b]one.json", "[b]one.wav"]


def test_the_sidecar_says_what_identify_and_detect_say(run, recording, quick, tmp_path):
    code, text, _ = run("purify", recording, "--out", tmp_path / "out", *NOISE, *quick, "--json")
    assert code == 0
    (value,) = json.loads(text)["written"]
    assert value == json.loads((tmp_path / "out/[b]one.json").read_text())
    for file, heard in (("source", "before"), ("written", "after")):
        named = json.loads(run("identify", value[file], "-m", value["model"], "--json")[1])
        best = named[0]["candidates"][0]
        assert best == {k: value[heard][k] for k in ("speaker", "score", "posterior")}
    # the detector's noise is that of the source for both, so that the two can be compared
    (record,) = json.loads(run("detect", value["source"], *quick, "--json")[1])
    for field in ("verdict", "distance", "distance_threshold"):
        assert record[field] == value["before"][field]


def test_a_folder_keeps_its_speakers(run, recording, quick, tmp_path):
    code, _, _ = run("purify", tmp_path / "in", "--out", tmp_path / "out", *NOISE, *quick)
    assert code == 0
    assert (tmp_path / "out/ann/[b]one.wav").exists()


def test_plot(run, recording, quick, tmp_path):
    arguments = (recording, "--out", tmp_path / "out", "--method", "bit-depth", "--plot", *quick)
    assert run("purify", *arguments)[0] == 0
    assert (tmp_path / "out/[b]one.png").read_bytes().startswith(b"\x89PNG")


def test_a_bad_file_does_not_end_the_run(run, recording, quick, tmp_path):
    bad = tmp_path / "in/bad.wav"
    bad.touch()
    code, text, err = run(
        "purify", bad, recording, "--out", tmp_path / "out", *NOISE, *quick, "--json"
    )
    assert code == 4
    assert len(json.loads(text)["written"]) == 1
    assert "0 bytes" in json.loads(text)["failed"][0]
    assert "skipped: " in err


def test_the_length_allowed_is_an_option(run, recording, quick, tmp_path):
    code, _, err = run(
        "purify", recording, "--out", tmp_path / "out", *NOISE, *quick, "--max-duration", 0.7
    )
    assert code == 4
    assert "skipped: " in err


def test_a_fitted_purifier_is_the_default_method(run, recording, guided, quick, tmp_path):
    out = tmp_path / "out"
    code, text, _ = run("purify", recording, "-o", out, "-p", guided, *quick, "--json")
    assert code == 0
    (value,) = json.loads(text)["written"]
    assert value["purifier"]["name"] == "guided"
    assert value["rounds"] == ROUNDS
    assert read_audio(out / "[b]one.wav").duration_s == read_audio(recording).duration_s


def test_a_model_without_calibration_has_no_verdict(run, recording, uncalibrated, tmp_path):
    code, text, _ = run(
        "purify", recording, "-o", tmp_path / "out", *NOISE, "-m", uncalibrated, "--json"
    )
    assert code == 0
    (value,) = json.loads(text)["written"]
    assert value["before"]["verdict"] is value["after"]["distance"] is None
    assert value["model"] == "resnet34-libri30"


def test_an_existing_output_is_kept_unless_forced(run, recording, quick, tmp_path):
    arguments = ("purify", recording, "--out", tmp_path / "out", *NOISE, *quick)
    assert run(*arguments)[0] == 0
    before = (tmp_path / "out/[b]one.wav").read_bytes()
    code, _, err = run(*arguments, "--seed", "1")
    assert code == 65
    assert "exists already" in err
    assert (tmp_path / "out/[b]one.wav").read_bytes() == before
    assert run(*arguments, "--seed", "1", "--force")[0] == 0
    assert (tmp_path / "out/[b]one.wav").read_bytes() != before


def test_originals_are_safe_from_force(run, recording, quick, tmp_path):
    original = recording.read_bytes()
    code, _, err = run(
        "purify", tmp_path / "in", "--out", tmp_path / "in", *NOISE, *quick, "--force"
    )
    assert code == 65
    assert "is one of the recordings" in err
    assert recording.read_bytes() == original


def test_the_default_is_the_purifier_that_came_with_the_model(
    run, recording, guided, quick, tmp_path, monkeypatch
):
    arguments = ("purify", recording, "-o", tmp_path / "out", *quick)
    monkeypatch.setattr(ModelCard, "purifier_path", None)
    code, _, err = run(*arguments)
    assert code == 65
    assert "comes without a fitted guided purifier; pass --purifier" in err
    monkeypatch.setattr(ModelCard, "purifier_path", guided)
    assert run(*arguments)[0] == 0


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--method", "pool"], "comes without a fitted pool purifier"),
        (["--set", "bits=8", "--purifier", "x"], "guided has no setting bits"),
        (["--method", "nose"], "did you mean noise"),
        (["--method", "noise", "--set", "bits=8"], "noise has no setting bits"),
        (
            ["--method", "noise", "--set", "snr_db"],
            "expected key=value; write both, e.g. --set snr_db=",
        ),
        (["--method", "noise", "--set", "snr_db=1", "--set", "snr_db=2"], "--set got snr_db twice"),
        (["--method", "noise", "--set", "snr_db=900"], "between -60 and 120"),
        (
            ["--method", "quantization", "--set", "bits=many"],
            "bits is 'many', expected a whole number",
        ),
        (["--method", "noise", "--purifier", "x"], "got --purifier x, expected none"),
        (["--set", "path=x"], "pass it as --purifier"),
        (["--purifier", "none.purifier"], "cannot be read"),
        ([*NOISE, "--calibration", "none.calibration"], "cannot be read"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_written(
    run, recording, tmp_path, options, text
):
    code, _, err = run("purify", recording, "--out", tmp_path / "out", *options)
    assert code == 65
    assert text in " ".join(err.split())
    assert not (tmp_path / "out").exists()


def test_a_purifier_of_another_model_is_refused(run, recording, guided, tmp_path):
    code, _, err = run(
        "purify", recording, "-o", tmp_path / "out", "-p", guided, "-m", "resnet34-libri30"
    )
    assert code == 65
    assert "was made for model" in err
