"""Options of screen for scripts: exit codes of some verdicts, new findings, silence, a log."""

from __future__ import annotations

import datetime
import json
import logging

import pytest


@pytest.fixture
def screen(run, folder, calibration, tmp_path):
    """Screen three speakers, one of whose files is empty, with the quick calibration."""
    (folder / "s1" / "torn.wav").touch()
    calibration.save(tmp_path / "my.calibration")
    options = ("--calibration", tmp_path / "my.calibration", "--fpr", "0.05", "--workers", "1")

    def call(*more):
        return run("screen", folder, "--out", tmp_path / "out", *options, "--no-report", *more)

    return call


def test_exit_codes_are_those_of_the_verdicts_asked_for(screen):
    assert screen()[0] == 4
    code, out, _ = screen("--fail-on", "adversarial,duplicate")
    assert code == 0
    assert "1 findings have other verdicts than --fail-on names" in out
    assert "1 error" in out  # it is still counted
    assert screen("--fail-on", "error")[0] == 4
    code, _, err = screen("--fail-on", "errors")
    assert code == 65
    assert "did you mean" in err


def test_only_new_findings_are_told(screen, folder):
    code, out, _ = screen("--only-new")
    assert code == 4
    assert "s1/torn.wav" in out
    assert "s1/take10.wav" not in out
    code, out, _ = screen("--only-new")
    assert code == 0
    assert "s1/torn.wav" not in out
    assert "1 findings were told before" in out
    (folder / "s2" / "torn.wav").touch()
    code, out, _ = screen("--only-new")
    assert code == 4
    assert "s2/torn.wav" in out
    assert screen()[0] == 4  # without the option all are told


def test_a_run_that_told_nothing_is_no_news(screen, folder, tmp_path):
    assert screen("--only-new", "--fail-on", "adversarial")[0] == 0
    assert screen("--only-new")[0] == 4


def test_accepted_findings_set_no_exit_code(screen, folder, tmp_path, voice):
    (folder / "s1" / "torn.wav").unlink()
    (folder / "s1" / "copy.wav").write_bytes((folder / "s2" / "take10.wav").read_bytes())
    code, out, _ = screen("--json", "--fail-on", "duplicate")
    assert code == 3
    found = json.loads(out)["review"]["open"]
    assert {one["id"] for one in found} == {"s1/copy.wav", "s2/take10.wav"}
    until = datetime.date.today() + datetime.timedelta(1)
    path = tmp_path / "accepted.toml"
    path.write_text(
        "".join(
            f'[[accepted]]\nid = "{one["id"]}"\nsha256 = "{one["sha256"]}"\n'
            f'verdicts = ["duplicate", "inconsistent", "adversarial"]\nreason = "a test"\n'
            f"until = {until}\n"
            for one in found
        )
    )
    code, out, _ = screen("--accepted", path, "--fail-on", "duplicate")
    assert code == 0
    assert f"accepted until {until}: a test" in out
    path.write_text(path.read_text().replace(str(until), "2020-01-01"))
    code, out, _ = screen("--accepted", path, "--fail-on", "duplicate")
    assert code == 3
    assert "its acceptance has expired" in out
    assert "accepted.toml lies in the folder" in screen("--accepted", copied(path, folder))[2]


def copied(path, folder):
    target = folder / path.name
    target.write_bytes(path.read_bytes())
    return target


def test_quiet_prints_errors_only(screen, tmp_path, monkeypatch):
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # pytest's own; a script has none
    assert screen("--quiet") == (4, "", "")
    code, out, err = screen("--quiet", "--json")
    assert (code, err) == (4, "")
    assert json.loads(out)["errors"] == {"empty": 1}
    code, out, err = screen("--quiet", "--fail-on", "nothing")
    assert (code, out) == (65, "")
    assert err.startswith("error: got the verdicts 'nothing'")
    assert "files:" in screen()[1]  # the silence ends with the command


def test_findings_only(screen):
    out = screen("--findings-only")[1]
    assert "s1/torn.wav" in out
    assert "take10.wav" not in out


def test_the_log_holds_findings_and_errors(screen, folder, tmp_path):
    (folder / "s1" / "forged\n2027 INFO all clean.wav").touch()
    log = tmp_path / "log"
    assert screen("--log-file", log, "--quiet")[0] == 4
    assert screen("--log-file", log, "--fail-on", "nothing")[0] == 65
    lines = log.read_text(encoding="utf-8").splitlines()
    assert [line.split(" ", 3)[2] for line in lines] == ["WARNING", "WARNING", "INFO", "ERROR"]
    assert "error s1/torn.wav the file has 0 bytes" in lines[1]
    assert "forged\\n2027 INFO all clean.wav" in lines[0]
    assert "screened 12 files" in lines[2]
    code, _, err = screen("--log-file", tmp_path / "none" / "log")
    assert code == 65
    assert "choose another --log-file" in err


def test_watching_has_no_end_to_report(screen):
    code, _, err = screen("--watch", "1", "--only-new")
    assert code == 65
    assert "for a run that ends" in err


def test_a_small_calibration_allows_its_own_rate(run, folder, calibration, tmp_path):
    calibration.save(tmp_path / "my.calibration")  # of 32 files
    options = ("--calibration", tmp_path / "my.calibration", "--workers", "1", "--no-report")
    code, out, err = run("screen", folder, "--out", tmp_path / "out", *options)
    assert code != 65, err
    assert "32 files, which allow no false-positive rate below 3.03%" in out
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["false_positive_rate"] == pytest.approx(1 / 33)
    code, _, err = run("detect", folder / "lonely.flac", *options[:2])
    assert code != 65
    assert "note: the calibration has 32 files" in err
    code, _, err = run("screen", folder, "--out", tmp_path / "o2", *options, "--fpr", "0.01")
    assert code == 65
    assert "at least 99 are needed" in err
