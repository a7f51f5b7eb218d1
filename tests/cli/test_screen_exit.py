"""What was not judged is no success: the exit code says so, and so do terminal and report."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from nip_audio.cli._exit import EXIT_CLEAN, EXIT_FAILED, EXIT_FLAGGED, EXIT_FLAGGED_AND_FAILED
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


@pytest.fixture
def summarised(monkeypatch):
    """Let a run end with another summary."""

    def change(**values):
        real = Tally.summary
        monkeypatch.setattr(
            Tally, "summary", lambda self, **given: replace(real(self, **given), **values)
        )

    return change


ALL_CLEAN = {"verdicts": {"clean": 10}, "errors": {}}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, EXIT_CLEAN),
        ({"warning": "either most files are attacked, or …"}, EXIT_FAILED),
        ({"passed_over": {"endings": {".dat": 30}}}, EXIT_FAILED),
        ({"passed_over": {"endings": {".txt": 30}}}, EXIT_CLEAN),
        ({"passed_over": {"groups_without_files": ["bob"]}}, EXIT_FAILED),
        ({"verdicts": {"clean": 9, "error": 1}, "errors": {"too_short": 1}}, EXIT_FAILED),
        ({"verdicts": {"clean": 9, "out_of_domain": 1}}, EXIT_FAILED),
        ({"verdicts": {"clean": 9, "adversarial": 1}}, EXIT_FLAGGED),
        ({"verdicts": {"clean": 9, "adversarial": 1}, "warning": "…"}, EXIT_FLAGGED_AND_FAILED),
    ],
    ids=str,
)
def test_the_exit_code_follows_from_all_that_was_not_judged(screened, summarised, values, expected):
    summarised(**ALL_CLEAN | values)
    code, out, summary = screened("--no-report")
    assert code == expected
    assert summary["incomplete"] is (expected in (EXIT_FAILED, EXIT_FLAGGED_AND_FAILED))
    assert "could not be judged" in out or not summary["failed"]
    said = "Not everything was judged" in out
    assert said is (summary["incomplete"] and not summary["failed"])


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
    assert json.loads(out) == summary


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
