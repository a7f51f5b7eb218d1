"""Commands on a model of pictures: the modality follows from the card."""

from __future__ import annotations

import json
import shutil

import pytest

from nip_audio.cli import main
from nip_audio.screening.calibration import Calibration


@pytest.fixture
def model(picture_model) -> str:
    return picture_model


def outcome(capsys, *arguments: object) -> tuple[int, str]:
    code = main([str(a) for a in arguments])
    return code, capsys.readouterr().out


def test_identify_names_what_is_shown(model, pictures, capsys):
    code, out = outcome(capsys, "identify", pictures / "00.png", "--model", model, "--json")
    assert code == 0
    (found,) = json.loads(out)
    assert len(found["candidates"]) == 3
    assert found["candidates"][0]["speaker"] in set("0123456789")


def test_a_file_that_is_no_picture_fails_and_the_rest_goes_on(model, pictures, tmp_path, capsys):
    (tmp_path / "bad.png").write_bytes(b"no picture")
    files = (tmp_path / "bad.png", pictures / "00.png")
    code, out = outcome(capsys, "identify", *files, "--model", model, "--json")
    assert code == 4
    assert [f["error"] is None for f in json.loads(out)] == [False, True]


def test_attack_writes_a_picture_and_says_what_became_of_it(model, pictures, tmp_path, capsys):
    pytest.importorskip("foolbox")
    given = ("attack", pictures / "00.png", "--model", model, "--out", tmp_path)
    code, out = outcome(capsys, *given, "--attack", "fgsm", "--eps", "0.4", "--json")
    assert code == 0
    (found,) = json.loads(out)["written"]
    assert found["succeeded"] == (found["named_before"] != found["named_after"])
    assert 0 < found["linf"] <= 0.4 + 1 / 255
    assert json.loads((tmp_path / "00.fgsm.json").read_text()) == found
    code, _ = outcome(capsys, *given, "--attack", "fgsm")
    assert code == 65  # exists
    code, _ = outcome(capsys, *given, "--target", "eleven", "--force")
    assert code == 65


def test_calibrate_and_detect(model, pictures, tmp_path, capsys):
    own = tmp_path / "own.calibration"
    given = (pictures, "--model", model, "--out", own, "--draws", 1)
    code, out = outcome(capsys, "calibrate", *given, "--json")
    assert code == 0
    assert json.loads(out)["files"] >= 20
    judged = ("detect", pictures / "00.png", "--model", model, "--calibration", own)
    code, out = outcome(capsys, *judged, "--fpr", "0.05", "--json")
    (found,) = json.loads(out)
    assert code == (0 if found["verdict"] == "clean" else 3)
    assert (found["distance"] > found["distance_threshold"]) == (found["verdict"] == "adversarial")
    assert found["named"] in set("0123456789")
    assert (found["height"], found["width"]) == (28, 28)
    assert "duration_s" not in found  # no picture has one
    code, _ = outcome(capsys, "detect", pictures / "00.png", "--model", model)
    assert code == 65  # no calibration
    code, _ = outcome(capsys, "calibrate", pictures / "00.png", "--model", model, "--out", "x")
    assert code == 65  # too few


def test_detect_with_the_calibration_that_came_with_a_model(pictures, capsys):
    files = (pictures / "00.png", pictures / "01.png")
    code, out = outcome(capsys, "detect", *files, "--model", "lenet5-mnist")
    assert code in (0, 3)
    assert "prediction" in out
    assert "00.png" in out


@pytest.mark.parametrize("option", ["--max-duration", "--tolerate-noise"])
def test_calibrate_refuses_options_of_audio(model, pictures, tmp_path, capsys, option):
    given = ["calibrate", str(pictures), "--model", model, "--out", str(tmp_path / "c"), option]
    assert main([*given, "0.1"]) == 65
    assert f"got {option}" in capsys.readouterr().err.replace("\n", " ")


def test_copies_calibrate_once(model, pictures, tmp_path, capsys):
    for name in ("a", "b"):
        shutil.copytree(pictures, tmp_path / name)
    given = ("calibrate", tmp_path / "a", tmp_path / "b", "--model", model, "--draws", 1)
    code, out = outcome(capsys, *given, "--out", tmp_path / "c", "--describe", "digits", "--json")
    assert code == 4  # the copies are named
    found = json.loads(out)
    assert (found["files"], len(found["failed"])) == (20, 20)
    assert "already in the calibration" in found["failed"][0]
    kept = Calibration.load(tmp_path / "c", model_id=found["model_id"])
    assert (kept.sources, len(kept.seen), kept.scale) == ("digits", 20, 1.0)


def test_purify_writes_pictures(model, pictures, tmp_path, capsys):
    given = ("purify", pictures, "--model", model, "--out", tmp_path / "clean")
    code, out = outcome(capsys, *given, "--method", "bit-depth", "--set", "bits=3", "--json")
    assert code == 0
    found = json.loads(out)["written"]
    assert len(found) == 20
    assert found[0]["by"]["name"]
    assert len(list((tmp_path / "clean").glob("*.png"))) == 20
    code, _ = outcome(capsys, *given)
    assert code == 65  # no guided purifier


def test_an_option_of_audio_is_refused(model, pictures, capsys):
    code = main(["identify", "--model", model, str(pictures / "00.png"), "--max-duration", "9"])
    assert code == 65
    err = capsys.readouterr().err.replace("\n", " ")
    assert "lenet1-digits takes images and got --max-duration" in err


@pytest.mark.parametrize(
    "arguments",
    [
        ["attack", "--goal", "accept"],
        ["attack", "--threshold", "0.5"],
        ["attack", "--speaker", "ann"],
        ["purify", "--plot"],
        ["purify", "--fpr", "0.01"],
        ["purify", "--only-flagged"],
    ],
)
def test_attack_and_purify_refuse_options_of_audio(model, pictures, tmp_path, capsys, arguments):
    command, *options = arguments
    given = [command, str(pictures / "00.png"), "--model", model, "--out", str(tmp_path / "out")]
    assert main([*given, *options]) == 65
    assert f"takes images and got {options[0]}" in capsys.readouterr().err.replace("\n", " ")
    assert not (tmp_path / "out").exists()


def test_the_modality_chooses_the_default_model(pictures, capsys):
    given = ("detect", pictures / "00.png", "--modality", "image", "--json")
    code, out = outcome(capsys, *given)
    assert code in (0, 3)
    assert "named" in json.loads(out)[0]


@pytest.mark.parametrize(
    "arguments",
    [
        ["detect", "P", "--model", "M", "--modality", "audio"],
        ["detect", "P", "--model", "xvector-libri251", "--modality", "image"],
        ["identify", "P", "--model", "M", "--modality", "audio"],
        ["backdoor", "F", "--model", "M", "--modality", "audio"],
        ["robustness", "M", "--data", "F", "--modality", "audio"],
        ["fit-purifier", "F", "--model", "M", "--modality", "audio", "--out", "O"],
        ["calibrate", "F", "--model", "M", "--modality", "audio", "--out", "O"],
        ["screen", "F", "--model", "M", "--modality", "audio", "--out", "O"],
        ["attack", "P", "--model", "M", "--modality", "audio", "--out", "O"],
        ["purify", "P", "--model", "M", "--modality", "audio", "--out", "O"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_model_of_another_modality_is_refused(model, pictures, tmp_path, capsys, arguments):
    places = {"P": pictures / "00.png", "F": pictures, "M": model, "O": tmp_path / "out"}
    assert main([str(places.get(a, a)) for a in arguments]) == 65
    asked = arguments[arguments.index("--modality") + 1]
    assert f"but --modality is {asked}" in capsys.readouterr().err.replace("\n", " ")
    assert not (tmp_path / "out").exists()


def test_commands_for_audio_alone_say_so(model, pictures, tmp_path, capsys):
    code = main(["enroll", "--model", model, str(pictures), "--out", str(tmp_path / "e")])
    assert code == 65
    assert "takes images" in capsys.readouterr().err.replace("\n", " ")
