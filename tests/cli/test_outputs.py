"""What commands refuse before they work, and what they say when they are stopped."""

from __future__ import annotations

import json
import shutil

import pytest


@pytest.fixture
def two_of_one_name(clean_folder, tmp_path):
    source = next(clean_folder.rglob("*.wav"))
    paths = [tmp_path / part / "x.wav" for part in ("a", "b")]
    for path in paths:
        path.parent.mkdir()
        shutil.copy(source, path)
    return paths


@pytest.mark.parametrize("force", [(), ("--force",)])
def test_two_recordings_that_would_become_one_are_refused_before_the_attack(
    run, two_of_one_name, tmp_path, force
):
    out = tmp_path / "attacked"
    code, _, err = run("attack", *two_of_one_name, "--set", "steps=1", "--out", out, *force)
    assert code == 65
    assert "a/x.wav and " in err
    assert "would both become" in err
    assert not out.exists()


def test_what_is_there_is_seen_before_the_first_attack(run, two_of_one_name, tmp_path):
    out = tmp_path / "attacked"
    first, second = two_of_one_name[0], two_of_one_name[1].with_name("y.wav")
    two_of_one_name[1].rename(second)
    assert run("attack", second, "--set", "steps=1", "--out", out)[0] == 0
    before = sorted(out.iterdir())
    code, _, err = run("attack", first, second, "--set", "steps=1", "--out", out)
    assert code == 65
    assert "y.pgd.wav exists already" in err
    assert sorted(out.iterdir()) == before


@pytest.mark.parametrize("stem", ["n" * 251, "\u58f0" * 83], ids=["latin", "chinese"])
@pytest.mark.parametrize(
    "command", [("attack", "--set", "steps=1"), ("purify", "--method", "quantization")]
)
def test_the_longest_names_are_shortened(run, clean_folder, tmp_path, stem, command):
    source = tmp_path / "in" / f"{stem}.wav"
    source.parent.mkdir()
    shutil.copy(next(clean_folder.rglob("*.wav")), source)
    out = tmp_path / "out"
    code, text, err = run(command[0], source, *command[1:], "--out", out, "--json")
    assert code in (0, 3), err
    (written,) = out.glob("*.wav")
    assert written.name.startswith(stem[:60])
    assert "~" in written.name
    assert len(written.name.encode()) <= 240
    (done,) = json.loads(text)["written"]
    assert done["written"] == str(written)
    assert len(list(out.glob("*.json"))) == 1


def test_two_long_names_stay_two(run, clean_folder, tmp_path):
    (tmp_path / "in").mkdir()
    for last in "ab":
        shutil.copy(next(clean_folder.rglob("*.wav")), tmp_path / "in" / f"{'n' * 250}{last}.wav")
    out = tmp_path / "out"
    assert run("purify", tmp_path / "in", "--method", "quantization", "--out", out)[0] == 0
    assert len(list(out.glob("*.wav"))) == 2


def test_purified_copies_in_the_screened_folder_are_refused_before_the_work(
    run, clean_folder, tmp_path
):
    inside = clean_folder / "purified"
    code, _, err = run("screen", clean_folder, "--out", tmp_path / "r", "--purify-flagged", inside)
    assert code == 65
    assert "as a new speaker" in err
    assert not inside.exists()
    assert not (tmp_path / "r").exists()


def test_a_file_is_no_folder_for_results(run, two_of_one_name, tmp_path):
    place = tmp_path / "taken"
    place.write_text("mine")
    code, _, err = run("attack", two_of_one_name[0], "--set", "steps=1", "--out", place)
    assert code == 65
    assert "taken cannot be created" in err
    code, _, err = run("screen", tmp_path / "a", "--out", tmp_path / "r", "--purify-flagged", place)
    assert code == 65
    assert "taken cannot be created" in err
    assert place.read_text() == "mine"


@pytest.mark.parametrize("command", ["calibrate", "enroll", "fit-plda"])
@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("nowhere/x", "nowhere does not exist; create it"),
        ("taken", "exists already; pass --force"),
        ("", "is a folder, expected a file"),
    ],
)
def test_a_place_that_cannot_be_written_is_refused_before_the_work(
    run, clean_folder, tmp_path, command, place, said
):
    (tmp_path / "taken").write_text("mine")
    code, _, err = run(command, clean_folder, "--out", tmp_path / place)
    assert code == 65
    assert said in err
    assert "100%" not in err  # no bar


@pytest.mark.parametrize(
    "arguments",
    [
        ("verify", "FILE", "--enrolment", "ENROLMENT", "--speaker", "a", "--threshold", "nan"),
        ("attack", "FILE", "--out", "OUT", "--threshold", "inf"),
        ("screen", "FOLDER", "--out", "OUT", "--watch", "-1"),
        ("screen", "FOLDER", "--out", "OUT", "--watch", "nan"),
        ("fit-purifier", "FOLDER", "--out", "OUT", "--set", "crop_s=nan"),
    ],
)
def test_numbers_that_are_none_are_refused(run, clean_folder, enrolment, tmp_path, arguments):
    file = next(clean_folder.rglob("*.wav"))
    places = {"FILE": file, "FOLDER": clean_folder, "OUT": tmp_path / "o", "ENROLMENT": enrolment}
    code, _, err = run(*(places.get(word, word) for word in arguments))
    assert code == 65
    assert (
        f"is {float(arguments[-1].removeprefix('crop_s='))}, expected" in err
        or "is -1.0, expected" in err
    )
    assert not (tmp_path / "o").exists()


def test_who_stops_a_command_is_told_what_goes_on(run, clean_folder, monkeypatch):
    def stopped(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("nip_audio.cli._inputs.load_model", stopped)
    code, out, err = run("detect", next(clean_folder.rglob("*.wav")), "--json")
    assert (code, out) == (130, "")
    assert "interrupted; files written so far are kept" in err


def test_a_recording_that_cannot_be_verified_has_failed(run, enrolment, tmp_path):
    bad = tmp_path / "bad.wav"
    bad.touch()
    who = ("--enrolment", enrolment, "--speaker", "s1", "--threshold", 0.4)
    code, out, err = run("verify", bad, *who, "--json")
    assert code == 4
    found = json.loads(out)
    assert found.keys() == {"file", "speaker", "error"}
    assert found["error"]["code"] == "empty"
    assert "bad.wav" in err
