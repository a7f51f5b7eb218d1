"""The command ``threshold``, and the commands that take its file."""

from __future__ import annotations

import json
import shutil

import pytest


@pytest.fixture(scope="module")
def made(clean_folder, tmp_path_factory):
    from nip_audio.cli import main

    path = tmp_path_factory.mktemp("made") / "my.threshold"
    options = ["--far", "0.05", "--out", str(path), "--rounds", "200"]
    assert main(["threshold", str(clean_folder), *options]) == 0
    return path


@pytest.fixture
def quick(calibration, tmp_path):
    path = tmp_path / "quick.calibration"
    calibration.save(path)
    return path


def test_threshold_writes_a_file_a_plot_and_says_what_it_found(run, clean_folder, tmp_path):
    out, plot = tmp_path / "a.threshold", tmp_path / "a.png"
    base = ["threshold", clean_folder, "--out", out, "--plot", plot, "--rounds", 100]
    code, text, err = run(*base, "--far", 0.05)
    assert code == 0
    for part in ("FAR (false acceptances)", "EER", "minDCF", "Cllr", "for FAR 5 %"):
        assert part in text
    assert "note: the trials are of 8 speakers" in err
    assert plot.read_bytes().startswith(b"\x89PNG")
    code, _, err = run(*base, "--far", 0.05)
    assert code == 65
    assert "exists already" in err
    code, text, _ = run(*base, "--prior", 0.05, "--c-miss", 2, "--force", "--json")
    found = json.loads(text)
    assert code == 0
    assert found["aim"] == {"far": None, "prior": 0.05, "c_miss": 2, "c_false_alarm": 1}
    assert found["score"] == "cosine"
    assert found["recordings"] == 32
    assert {warning["code"] for warning in found["warnings"]} >= {"few_speakers"}


def test_threshold_reads_a_list_and_reports_what_it_skips(run, clean_folder, tmp_path):
    trials = tmp_path / "veri_test.txt"
    lines = [f"1 s{k}/take0.wav s{k}/take{t}.wav" for k in range(8) for t in (1, 2)]
    lines += [f"0 s{k}/take0.wav s{(k + 1) % 8}/take1.wav" for k in range(8)]
    lines += ["1 s0/take0.wav s0/none.wav"]
    trials.write_text("\n".join(lines))
    base = ["threshold", trials, "--out", tmp_path / "t", "--data-root", clean_folder, "--json"]
    code, text, err = run(*base, "--rounds", 100)
    found = json.loads(text)
    assert code == 4
    assert (found["targets"], found["impostors"], len(found["failed"])) == (16, 8, 1)
    assert "skipped:" in err
    code, _, err = run(*base, "--enrol", 3, "--force")
    assert code == 65
    assert "got --enrol 3 and a trial list" in err
    code, _, err = run("threshold", clean_folder, "-o", tmp_path / "u", "--recordings", trials)
    assert code == 65
    assert "is no trial list" in err


def test_verify_prints_the_ratio_and_the_probability(run, made, enrolment, folder):
    base = ["verify", folder / "s1/take10.wav", "-e", enrolment, "-s", "s1"]
    code, text, err = run(*base, "--threshold-file", made, "--prior", 0.01, "--json")
    found = json.loads(text)
    assert code in (0, 3)
    assert found["calibrated_llr"] is not None
    assert 0 < found["probability"] < 1
    assert "set for voices enrolled from 1 recording, these are of 4" in err
    _, text, _ = run(*base, "--threshold-file", made)
    assert "; log-likelihood ratio " in text
    assert "probability" not in text
    _, text, _ = run(*base, "--threshold", 0.5, "--json")
    assert "calibrated_llr" not in json.loads(text)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--prior", "0.5"], "got --prior without --threshold-file, expected both"),
        (["--threshold-file", "MADE", "--threshold", "0.5"], "a threshold file and --threshold"),
        (["--threshold-file", "MADE", "--prior", "2"], "the prior is 2.0, expected"),
        (["--threshold-file", "VOICES"], "has kind enrolment"),
        (["--threshold-file", "none"], "none cannot be read"),
        (
            ["--threshold-file", "MADE", "--model", "resnet34-libri30"],
            "was made for model",
        ),
    ],
)
def test_wrong_uses_of_the_file_are_one_error(run, made, enrolment, folder, options, expected):
    named = {"MADE": made, "VOICES": enrolment}
    given = [named.get(option, option) for option in options]
    base = ["verify", folder / "s1/take10.wav", "-e", enrolment, "-s", "s1"]
    code, _, err = run(*base, *given)
    assert code == 65
    assert expected in " ".join(err.split())


def test_identify_takes_the_file(run, made, enrolment, folder):
    file = folder / "s1/take10.wav"
    base = ["identify", file, "--model", "xvector-libri251", "--json"]
    _, text, _ = run(*base, "-e", enrolment, "--threshold-file", made)
    threshold = json.loads(run("verify", file, "-e", enrolment, "-s", "s1", "--threshold-file",
                               made, "--json")[1])["threshold"]  # fmt: skip
    assert json.loads(text)[0]["threshold"] == threshold
    code, _, err = run(*base, "--threshold-file", made)
    assert code == 65
    assert "got --threshold-file without --enrolment" in err


def test_screen_compares_voices_at_the_threshold(run, made, folder, quick, tmp_path):
    base = ["screen", folder, "-c", quick, "--fpr", "0.05", "--workers", 1, "--json"]
    _, own, _ = run(*base, "--out", tmp_path / "own")
    _, other, _ = run(*base, "--out", tmp_path / "other", "--threshold-file", made)
    assert json.loads(own)["calibration"] != json.loads(other)["calibration"]
    # the measurements of a run are judged again at another threshold
    _, again, _ = run(*base, "--out", tmp_path / "own", "--threshold-file", made)
    assert json.loads(again)["calibration"] == json.loads(other)["calibration"]


def test_a_file_for_another_score_is_refused(run, made, enrolment, folder, clean_folder, tmp_path):
    plda = tmp_path / "my.plda"
    assert run("fit-plda", clean_folder, "--out", plda, "--lda-dim", 6)[0] == 0
    copy = shutil.copy(made, tmp_path / "copy")
    code, _, err = run(
        "verify", folder / "s1/take10.wav", "-e", enrolment, "-s", "s1", "--plda", plda,
        "--threshold-file", copy,
    )  # fmt: skip
    assert code == 65
    assert "was made for scores of the cosine, but the PLDA" in err


def test_speakers_come_from_the_paths_of_a_folder_but_not_of_a_list(run, clean_folder, tmp_path):
    base = ["--out", tmp_path / "t", "--rounds", 100, "--json"]
    code, text, _ = run("threshold", clean_folder, *base, "--speaker-from", "{speaker}/*")
    assert (code, json.loads(text)["recordings"]) == (0, 32)
    trials = tmp_path / "veri_test.txt"
    trials.write_text("1 s0/take0.wav s0/take1.wav")
    code, _, err = run("threshold", trials, *base, "--speaker-from", "{speaker}/*", "--force")
    assert code == 65
    assert "got --speaker-from and the trial list" in err
