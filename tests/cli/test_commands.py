from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import soundfile

from nip_audio import __version__, read_audio
from nip_audio.models.cards import find_pretrained, read_card

COMMANDS = (
    "models",
    "identify",
    "enroll",
    "evaluate",
    "fit-plda",
    "verify",
    "calibrate",
    "detect",
    "attack",
    "purify",
    "robustness",
    "screen",
)


@pytest.fixture
def quick(calibration, tmp_path):
    path = tmp_path / "quick.calibration"
    calibration.save(path)
    return path


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_an_example(run, command):
    code, out, _ = run(command, "--help")
    assert code == 0
    assert f"Example: nip-audio {command}" in " ".join(out.split())


def test_version(run):
    assert run("--version") == (0, f"{__version__}\n", "")


@pytest.mark.parametrize(
    "arguments",
    [["fly"], ["screen"], ["screen", "x", "--out"], ["attack", "a.wav", "--eps", "loud"]],
)
def test_wrong_usage_exits_with_64(run, arguments):
    code, out, err = run(*arguments)
    assert code == 64
    assert out == ""
    assert "rror" in err


def test_models_lists_the_shipped_model(run):
    code, out, _ = run("models", "--json")
    assert code == 0
    (card,) = [c for c in json.loads(out) if c["name"] == "xvector-libri251"]
    assert card["sample_rate_hz"] == 16000
    assert "xvector-libri251" in run("models")[1]


def test_models_describes_one(run):
    card = read_card(find_pretrained("xvector-libri251"))
    code, out, _ = run("models", "xvector-libri251")
    assert code == 0
    lines = out.splitlines()
    assert f"licence: {card.data['licence']}" in lines
    assert "licence of the data: LibriSpeech: CC BY 4.0 (Panayotov et al. 2015)" in lines
    eer = card.data["metrics"]["verification"]["eer"]
    value, low, high = (f"{100 * eer[key]:.1f}" for key in ("value", "low", "high"))
    assert any(
        line.startswith("  EER, ") and f": {value} % [{low}, {high}]" in line for line in lines
    )
    limits = lines[lines.index("what it must not be used for:") + 1 :]
    assert len(limits) == 3
    assert limits[0] == f"  {card.data['limits']}"


def test_models_describes_one_as_json(run):
    code, out, _ = run("models", "resnet20-gtsrb", "--json")
    card = json.loads(out)
    assert (code, card["name"], card["data_licence"][:5]) == (0, "resnet20-gtsrb", "GTSRB")
    assert "Not for vehicles" in card["misuses"][0]
    first = card["results"][0]
    assert first["low"] < first["value"] == card["metrics"]["clean"] < first["high"]
    assert (first["metric"], first["items"]) == ("accuracy", card["metrics"]["test"])


def test_models_knows_no_other(run, uncalibrated):
    code, out, err = run("models", "xvektor-libri251")
    assert (code, out) == (65, "")
    assert "xvector-libri251" in err
    code, out, _ = run("models", uncalibrated)
    assert code == 0
    assert f"directory: {uncalibrated}" in out


def test_an_unknown_model_lists_the_known(run, folder, tmp_path):
    code, _, err = run("screen", folder, "--out", tmp_path / "o", "--model", "xvektor-libri251")
    assert code == 65
    assert "xvector-libri251" in err


def test_screen_flags_and_exits_with_3(run, folder, quick, voice, tmp_path):
    soundfile.write(folder / "s1/take11.wav", voice(7, 11), 16000, "PCM_16")
    arguments = ["screen", folder, "--out", tmp_path / "o", "-c", quick, "--fpr", "0.05"]
    code, out, _ = run(*arguments)
    assert code == 3
    assert "10 files" in out
    assert run(*arguments)[0] == 3  # complete: nothing left to do, the same answer
    code, out, _ = run(*arguments, "--json")
    assert json.loads(out)["files"] == 10


def test_screen_finishes_and_exits_with_4_when_a_file_fails(run, folder, quick, tmp_path):
    (folder / "s0/[bold]broken.wav").write_text("no audio")
    code, out, _ = run("screen", folder, "--out", tmp_path / "o", "-c", quick, "--fpr", "0.05")
    assert code == 4
    assert "[bold]broken.wav" in out  # a name is data, never markup
    assert len((tmp_path / "o/results.jsonl").read_text().splitlines()) == 11


def test_screen_refuses_other_settings_with_65(run, folder, quick, tmp_path):
    arguments = ["screen", folder, "--out", tmp_path / "o", "-c", quick, "--fpr", "0.05"]
    run(*arguments)
    code, _, err = run(*arguments, "--seed", "5")
    assert code == 65
    assert "another seed" in err


def test_screen_of_no_folder_exits_with_65(run, quick, tmp_path):
    code, _, err = run(
        "screen", tmp_path / "none", "--out", tmp_path / "o", "-c", quick, "--fpr", 0.05
    )
    assert code == 65
    assert "is not a folder" in err


def test_detect_judges_single_files(run, folder, quick):
    files = [folder / "s0/take10.wav", folder / "s1/take10.wav"]
    code, out, _ = run("detect", *files, "-c", quick, "--fpr", "0.05", "--json")
    records = json.loads(out)
    assert [r["id"] for r in records] == [str(f) for f in files]
    assert code == (3 if any(r["verdict"] != "clean" for r in records) else 0)
    assert all(r["consistency"] is None for r in records)


def test_detect_reports_a_missing_file_and_judges_the_others(run, folder, quick, tmp_path):
    code, out, _ = run(
        "detect", tmp_path / "none.wav", folder / "s0/take10.wav", "-c", quick, "--fpr", "0.05",
        "--json",
    )  # fmt: skip
    first, second = json.loads(out)
    assert code == 4
    assert first["error"]["code"] == "missing"
    assert second["distance"] is not None


def test_verify_accepts_the_speaker_and_rejects_another(run, enrolment, folder):
    base = ["verify", folder / "s1/take10.wav", "--enrolment", enrolment, "--json"]
    own = json.loads(run(*base, "--speaker", "s1", "--threshold", "0")[1])["cosine"]
    other = json.loads(run(*base, "--speaker", "s7", "--threshold", "0")[1])["cosine"]
    assert other < own
    between = (own + other) / 2
    for speaker, expected in (("s1", (0, True)), ("s7", (3, False))):
        code, out, _ = run(*base, "--speaker", speaker, "--threshold", between)
        assert (code, json.loads(out)["accepted"]) == expected


def test_verify_takes_the_threshold_of_the_calibration(run, enrolment, folder, quick, calibration):
    file = folder / "s1/take10.wav"
    _, out, _ = run("verify", file, "-e", enrolment, "-s", "s1", "-c", quick, "--json")
    assert json.loads(out)["threshold"] == round(calibration.verification_threshold, 6)


def test_verify_names_near_speakers(run, enrolment, folder, quick):
    code, _, err = run(
        "verify", folder / "s1/take10.wav", "-e", enrolment, "-s", "s11", "-c", quick
    )
    assert code == 65
    assert "'s11' is not enrolled" in err
    assert "s1" in err


def test_enroll_keeps_what_is_there_unless_forced(run, enrolment, clean_folder):
    before = enrolment.read_bytes()
    code, _, err = run("enroll", clean_folder, "--out", enrolment)
    assert code == 65
    assert "exists already" in err
    assert enrolment.read_bytes() == before
    assert run("enroll", clean_folder, "--out", enrolment, "--force")[0] == 0


def test_enroll_leaves_out_bad_files_with_4(run, clean_folder, tmp_path):
    source = tmp_path / "voices"
    shutil.copytree(clean_folder / "s0", source / "ann")
    (source / "ann/empty.wav").touch()
    code, out, err = run("enroll", source, "--out", tmp_path / "v", "--json")
    assert code == 4
    assert json.loads(out)["speakers"] == {"ann": 4}
    assert "0 bytes" in err


def test_enroll_refuses_a_flat_folder(run, clean_folder, tmp_path):
    code, _, err = run("enroll", clean_folder / "s0", "--out", tmp_path / "v")
    assert code == 65
    assert "into a separate folder" in err


def test_calibrate_then_screen_with_it(run, clean_folder, folder, tmp_path):
    path = tmp_path / "own.calibration"
    code, out, _ = run("calibrate", clean_folder, "--clean-only", "--out", path, "--json")
    assert code == 0
    assert json.loads(out)["files"] == 32
    code, _, _ = run("screen", folder, "--out", tmp_path / "o", "-c", path, "--fpr", "0.05")
    assert code in (0, 3)
    code, _, err = run("screen", folder, "--out", tmp_path / "p", "-c", path, "--fpr", "0.01")
    assert code == 65
    assert "at least 99 are needed" in err


def test_attack_judges_the_written_file(run, enrolment, folder, tmp_path):
    source = folder / "s1/take10.wav"
    trial = ["-e", enrolment, "-s", "s1", "--json", "--threshold"]
    before = json.loads(run("verify", source, *trial, "0")[1])["cosine"]
    trial.append(before - 0.001)
    code, out, _ = run(
        "attack", source, "--attack", "pgd", "--eps", "0.01", "--out", tmp_path / "adv",
        "--goal", "reject", *trial,
    )  # fmt: skip
    (result,) = json.loads(out)["written"]
    assert code == 0
    written = tmp_path / "adv/take10.pgd.wav"
    assert json.loads((tmp_path / "adv/take10.pgd.wav.json").read_text()) == result
    assert soundfile.info(written).subtype == "PCM_16"
    difference = read_audio(written).samples - read_audio(source).samples
    assert float(difference.abs().max()) == pytest.approx(result["linf"], abs=1e-6)
    assert result["linf"] <= 0.01 + 1 / 65536
    assert result["score_after"] < result["score_before"]
    # the sidecar's score is what verify says of the file
    verified = json.loads(run("verify", written, *trial)[1])
    assert verified["cosine"] == pytest.approx(result["score_after"], abs=1e-5)
    assert result["fools"]
    assert not verified["accepted"]
    rms = [float(np.linalg.norm(x)) for x in (read_audio(source).samples, difference)]
    assert result["snr_db"] == pytest.approx(20 * np.log10(rms[0] / rms[1]), abs=1e-3)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--attack", "pgt"], "did you mean pgd"),
        (["--eps", "0"], "expected more than 0"),
        (["--eps", "8"], "8/255 is 0.0314"),
        (["--speaker", "s1"], "belong together"),
        (["--goal", "accept"], "needs a voice"),
        (["--target", "nobody"], "none of the 251 labels"),
        (["--attack", "jsma"], "jsma cannot work at level 'raw'"),
        (["--attack", "deepfool", "--eps", "0.1"], "deepfool has no setting eps"),
        (["--goal", "misidentify", "--target", "nobody"], "leaves no choice of whom"),
        (["--attack", "s-ala"], "s-ala is for untargeted closed-set identification"),
    ],
)
def test_attack_refuses_what_makes_no_sense(run, folder, quick, tmp_path, options, text):
    code, _, err = run(
        "attack", folder / "s1/take10.wav", "--out", tmp_path / "adv", "-c", quick, *options
    )
    assert code == 65
    assert text in " ".join(err.split())
    assert not list(tmp_path.glob("adv/*"))


@pytest.mark.parametrize(
    "options",
    [
        ["--attack", "deepfool", "--steps", "20"],
        ["--attack", "kenansville"],
        ["--attack", "fakebob", "--steps", "3"],
        ["--attack", "auna", "--queries", "3"],
    ],
    ids=lambda options: options[1],
)
def test_attack_of_any_kind_may_aim_at_being_named_otherwise(run, folder, tmp_path, options):
    """Needs neither enrolment nor calibration; deepfool and kenansville take no eps."""
    source = folder / "s1/take10.wav"
    code, out, _ = run(
        "attack", source, "--goal", "misidentify", "--out", tmp_path / "adv", "--json", *options
    )
    assert code == 0
    (result,) = json.loads(out)["written"]
    assert result["aim"] == "identified as anybody else"
    assert result["threshold"] is None
    assert not result["succeeded_before"]
    assert result["queries"] >= 1
    before, after = (
        json.loads(run("identify", f, "--model", "xvector-libri251", "--json")[1])[0]["candidates"]
        for f in (source, result["written"])
    )
    assert (before[0]["speaker"] != after[0]["speaker"]) == result["fools"]


def test_attack_goes_on_after_a_bad_file(run, folder, quick, tmp_path):
    (tmp_path / "bad.wav").touch()
    code, out, err = run(
        "attack", tmp_path / "bad.wav", folder / "s1/take10.wav", "--attack", "fgsm",
        "--out", tmp_path / "adv", "-c", quick, "--json",
    )  # fmt: skip
    assert code == 4
    found = json.loads(out)
    assert len(found["written"]) == 1
    (failed,) = found["failed"]
    assert "bad.wav" in failed
    assert "0 bytes" in err
