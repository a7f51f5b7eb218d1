from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pytest

from nip_audio.screening.judge import judge_speaker
from nip_audio.screening.recordings import Recordings
from nip_audio.screening.records import FLAGGED, NOT_JUDGED, Finding, ScreenRecord, Verdict
from nip_audio.screening.summary import ScreenSummary, Tally


def record(number: int, verdict: str = "clean", p_value: float | None = 0.5) -> ScreenRecord:
    error = {"code": "silent", "found": "", "remedy": ""} if verdict == "error" else None
    return ScreenRecord(
        id=str(number), speaker=f"s{number % 3}", verdict=verdict, p_value=p_value, error=error
    )


def summarize(records: list[ScreenRecord]) -> ScreenSummary:
    tally = Tally(0.01, Recordings.words)
    for name in sorted({r.speaker for r in records}):
        group = [r for r in records if r.speaker == name]
        tally.add(group, judge_speaker(group, Recordings.words))
    return tally.summary()


def test_counts_verdicts_errors_and_speakers():
    records = [record(0), record(1, "adversarial", 0.001), record(2, "error", None), record(3)]
    summary = summarize(records)
    assert summary.verdicts == {"adversarial": 1, "clean": 2, "error": 1}
    assert summary.errors == {"silent": 1}
    assert (summary.files, summary.speakers, summary.flagged, summary.failed) == (4, 3, 1, 1)
    assert summary.speakers_flagged == 1
    assert summary.expected_by_chance == 0.03  # of three that could be judged, at 1 %
    assert summary.warning is None


def test_a_file_that_is_out_of_domain_counts_as_not_judged():
    summary = summarize([record(0), record(1, "out_of_domain"), record(2, "error", None)])
    assert (summary.flagged, summary.failed, summary.speakers_flagged) == (0, 2, 0)
    assert summary.to_json()["failed"] == 2
    assert set(FLAGGED) | set(NOT_JUDGED) | {"clean"} == set(get_args(Verdict))
    assert not set(FLAGGED) & set(NOT_JUDGED)
    group = judge_speaker([record(0, "out_of_domain"), record(3)], Recordings.words)
    assert (group.flagged, group.failed) == (0, 1)


@pytest.mark.parametrize("risk", FLAGGED)
def test_no_evidence_is_hidden_by_an_odd_spectrum(risk):
    outside = ScreenRecord("x", None, "clean").with_findings(Finding.of("out_of_domain", "odd"))
    assert (outside.verdict, outside.flagged, outside.failed) == ("out_of_domain", False, True)
    both = outside.with_findings(Finding.of(risk, "found"))
    assert (both.verdict, both.flagged, both.failed) == (risk, True, False)


def test_an_empty_folder_is_no_warning():
    assert summarize([]).to_json()["files"] == 0


@pytest.mark.parametrize(
    ("low", "total", "warned"), [(2, 40, False), (6, 40, False), (10, 40, True), (2, 3, False)]
)
def test_warns_when_far_too_many_files_are_unusual(low, total, warned):
    records = [record(i, p_value=0.01 if i < low else 0.6) for i in range(total)]
    assert (summarize(records).warning is not None) == warned


def test_warns_when_most_files_are_out_of_domain():
    records = [record(i, "out_of_domain") for i in range(3)] + [record(9)]
    assert "Calibrate on clean audio of your own" in summarize(records).warning


@pytest.mark.parametrize(
    ("records", "passed_over", "expected"),
    [
        ([record(0), record(1)], {}, False),
        ([record(0), record(1, "adversarial", 0.001)], {}, False),
        ([record(0), record(1, "out_of_domain")], {}, True),
        ([record(0), record(1, "error", None)], {}, True),
        ([record(i, p_value=0.01) for i in range(40)], {}, True),  # the warning: unlike all of it
        ([record(0)], {"endings": {".txt": 30, ".csv": 1}, "groups_without_files": []}, False),
        ([record(0)], {"endings": {".dat": 1}, "groups_without_files": []}, True),
        ([record(0)], {"endings": {}, "groups_without_files": ["bob"]}, True),
    ],
)
def test_what_was_not_judged_does_not_pass_for_clean(records, passed_over, expected):
    summary = replace(summarize(records), passed_over=passed_over)
    assert summary.incomplete is expected
    assert summary.to_json()["incomplete"] is expected


@pytest.mark.parametrize("verdict", NOT_JUDGED)
def test_a_speaker_is_clean_only_if_all_files_are(verdict):
    p_value = None if verdict == "error" else 0.5
    found = judge_speaker([record(0), record(3, verdict, p_value)], Recordings.words)
    assert (found.verdict, found.flagged, found.failed) == (verdict, 0, 1)
    flagged = judge_speaker([record(0, "damaged"), record(3, verdict, p_value)], Recordings.words)
    assert (flagged.verdict, flagged.flagged, flagged.failed) == ("damaged", 1, 1)


def test_what_was_not_judged_is_counted_by_its_reason():
    records = [record(0), record(1, "error", None), record(2, "out_of_domain"), record(3)]
    summary = summarize([*records, record(4, "out_of_domain"), record(5, "damaged")])
    assert summary.not_judged == {"silent": 1, "out_of_domain": 2}
    assert sum(summary.not_judged.values()) == summary.failed
    assert summary.verdicts["clean"] == 2


def test_of_two_findings_both_are_shown_and_the_graver_decides():
    """A tone, or another sample rate in the header, hides no attack."""
    found = ScreenRecord("a", "s", "clean").with_findings(
        Finding.of("out_of_domain", "its spectrum is odd"),
        Finding.of("adversarial", "it responds as attacks do"),
    )
    assert (found.verdict, found.flagged, found.failed) == ("adversarial", True, False)
    assert [finding.risk for finding in found.findings] == ["out_of_domain", "adversarial"]
    assert "its spectrum is odd" in found.why[0]
    assert "it responds as attacks do" in found.why[1]
