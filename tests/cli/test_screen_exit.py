"""What was not judged is no success: the exit code says so, and so do terminal and report."""

from __future__ import annotations

import json
import shutil
from xml.etree import ElementTree

import pytest

from nip_audio.cli._exit import (
    EXIT_CLEAN,
    EXIT_FAILED,
    EXIT_FLAGGED,
    EXIT_FLAGGED_AND_FAILED,
    EXIT_REFUSED,
)
from nip_audio.screening.pipeline import Screener
from nip_audio.screening.summary import Tally


@pytest.fixture
def screened(run, calibration, folder, tmp_path):
    """Screen the folder; return exit code, standard output and summary."""
    calibration.save(tmp_path / "quick.calibration")

    def screen(*arguments):
        given = ("--calibration", tmp_path / "quick.calibration", "--fpr", "0.05", *arguments)
        code, out, _ = run("screen", folder, "--out", tmp_path / "out", *given)
        return code, out, json.loads((tmp_path / "out/summary.json").read_text())

    return screen


WARNING = "either most files are attacked, or …"


@pytest.mark.parametrize(
    ("found", "warning", "expected"),
    [
        ("", None, EXIT_CLEAN),
        ("", WARNING, EXIT_FAILED),
        ("s0/notes.txt", None, EXIT_CLEAN),
        ("s0/recording.dat", None, EXIT_FAILED),
        ("bob/notes.txt", None, EXIT_FAILED),  # nobody heard bob
        ("s0/broken.wav", None, EXIT_FAILED),
    ],
)
def test_the_exit_code_follows_from_all_that_was_not_judged(
    screened, folder, monkeypatch, found, warning, expected
):
    if found:
        (folder / found).parent.mkdir(exist_ok=True)
        (folder / found).write_text("no audio")
    monkeypatch.setattr(Tally, "_warning", lambda _: warning)
    code, out, summary = screened("--no-report", "--fail-on", "error")
    assert code == expected, out
    assert summary["incomplete"] is (expected == EXIT_FAILED or summary["failed"] > 0)
    if summary["incomplete"] and not summary["failed"]:
        assert "Not everything was judged" in out


def test_a_warning_adds_to_what_was_flagged(screened, folder, monkeypatch):
    shutil.copy(folder / "s0/take10.wav", folder / "s1/copy.wav")
    assert screened("--no-report", "--fail-on", "duplicate")[0] == EXIT_FLAGGED
    monkeypatch.setattr(Tally, "_warning", lambda _: WARNING)
    assert screened("--no-report", "--fail-on", "duplicate")[0] == EXIT_FLAGGED_AND_FAILED


def test_terminal_and_report_count_apart_what_was_not_judged(screened, folder, tmp_path):
    (folder / "s0/take10.wav").write_bytes(b"")
    (folder / "s1/take10.wav").write_text("no audio")
    code, out, summary = screened()
    assert code in (EXIT_FAILED, EXIT_FLAGGED_AND_FAILED)
    assert "2 of them could not be judged (1 empty, 1 not_audio" in out
    assert summary["verdicts"]["clean"] + summary["flagged"] + summary["failed"] == 10
    page = (tmp_path / "out/report.html").read_text(encoding="utf-8")
    assert "could not be judged (2 error: 1 empty, 1 not audio" in page


def test_json_is_the_summary(screened):
    _, out, summary = screened("--json", "--no-report")
    assert {name: value for name, value in json.loads(out).items() if name != "review"} == summary


def test_findings_are_printed_for_other_tools(screened, folder):
    shutil.copy(folder / "s0/take10.wav", folder / "s1/copy.wav")
    code, out, _ = screened("--no-report", "--format", "junit", "--fail-on", "duplicate")
    assert code == EXIT_FLAGGED
    suite = ElementTree.fromstring(out)
    failed = {case.get("name") for case in suite if case.find("failure") is not None}
    assert {"s0/take10.wav", "s1/copy.wav"} == failed
    assert suite.get("tests") == "11"
    _, out, _ = screened("--no-report", "--format", "jsonl", "--fail-on", "duplicate")
    assert {json.loads(line)["id"] for line in out.splitlines()} == failed
    code, out, _ = screened("--no-report", "--format", "json", "--fail-on", "duplicate")
    assert {one["id"] for one in json.loads(out)["review"]["open"]} == failed


@pytest.mark.parametrize(
    ("more", "said"),
    [(["--json"], "got --json and --format sarif"), (["--watch", "1"], "--watch got --format")],
)
def test_two_formats_at_once_are_refused(run, folder, tmp_path, more, said):
    code, _, err = run("screen", folder, "--out", tmp_path / "o", "--format", "sarif", *more)
    assert code == EXIT_REFUSED
    assert said in err


def test_trusting_times_is_told_to_the_screener(screened, monkeypatch):
    seen = []
    real = Screener.screen
    monkeypatch.setattr(
        Screener,
        "screen",
        lambda self, *args, **given: (seen.append(self.trust_mtime), real(self, *args, **given))[1],
    )
    screened("--no-report")
    screened("--no-report", "--trust-mtime")
    assert seen == [False, True]
