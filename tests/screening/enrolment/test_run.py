"""The gate inside a screening: resumed runs, strictness, bad folders, and what it costs others."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import soundfile

from nip_audio.audio.windows import sound_of
from nip_audio.cli import main
from nip_audio.errors import InputError
from nip_audio.image.adapter import ImageAdapter
from nip_audio.models.log_ratios import LogRatios
from nip_audio.screening import journal as journal_module
from nip_audio.screening import sounds
from nip_audio.screening.engines.local import LocalEngine
from nip_audio.screening.enrolment.gate import EnrolmentGate
from nip_audio.screening.enrolment.limits import GateLimits
from nip_audio.screening.journal import from_line, to_line
from nip_audio.screening.measure import FileMeasurer
from nip_audio.screening.sources import FolderSource

LIMITS = GateLimits.of(None)
EASY = GateLimits(
    replace(LIMITS.recording, least_speech_s=0.5, least_snr_db=-20.0, least_bandwidth_hz=0.0),
    replace(LIMITS.speaker, least_speech_s=1.5, least_cohesion=-1.0),
)


@pytest.fixture
def heard(monkeypatch):
    """Synthetic voices are speech, whatever silero-vad says; count what is measured."""
    asked = []

    def find(samples, rate_hz):
        asked.append(len(samples))
        return sound_of(samples, rate_hz)

    monkeypatch.setattr(sounds, "find_speech", find)
    return asked


@pytest.fixture
def gated(screener, folder, tmp_path):
    source = FolderSource(folder)
    engine = LocalEngine(1)

    def screen(gate, judge=screener.judge):
        changed = replace(screener, gate=gate, judge=judge, engine=engine)
        found = changed.screen(source, tmp_path / "out")
        files = {record.id: record for record in found.results.files()}
        return found.summary, files, {one.speaker: one for one in found.results.speakers()}

    return screen


def test_without_a_gate_no_speech_is_measured(gated, heard):
    summary, files, speakers = gated(None)
    assert (heard, summary.gated) == ([], None)
    assert all(one.details.speech_s is None and one.details.unmet is None for one in files.values())
    assert all(one.gate is None for one in speakers.values())


def test_a_run_with_the_gate_measures_what_an_earlier_one_did_not_once(gated, heard):
    gated(None)
    _, files, speakers = gated(EnrolmentGate(EASY))
    assert len(heard) == len(files) == 10
    again = gated(EnrolmentGate(EASY))
    assert len(heard) == 10
    assert again[1:] == (files, speakers)
    assert all(one.details.speech_s > 0.5 for one in files.values())
    gated(None)
    gated(EnrolmentGate(LIMITS))  # other limits judge the same measurements
    assert len(heard) == 10


def test_what_another_version_found_is_measured_again(gated, heard, monkeypatch):
    gated(EnrolmentGate(EASY))
    for module in ("nip_audio.screening.sounds", "nip_audio.screening.pipeline"):
        monkeypatch.setattr(f"{module}.speech_finder", lambda: "silero-vad 99")
    gated(EnrolmentGate(EASY))
    assert len(heard) == 20


def test_a_journal_of_an_earlier_version_is_read(gated, tmp_path):
    gated(None)
    path = tmp_path / "out" / journal_module.JOURNAL_NAME
    for line in path.read_bytes().splitlines(keepends=True):
        data = journal_module._unchecked(line)
        del data["speech"]
        assert to_line(from_line(journal_module._checked(data))) == line


def test_a_measurement_survives_the_journal(gated, heard, tmp_path):
    gated(EnrolmentGate(EASY))
    path = tmp_path / "out" / journal_module.JOURNAL_NAME
    speech = from_line(path.read_bytes().splitlines(keepends=True)[0]).speech
    assert speech.finder.startswith("silero-vad ")
    assert speech.speech_s > 0.5


def test_good_speakers_are_enrolled(gated, heard):
    summary, files, speakers = gated(EnrolmentGate(EASY, strict=True))
    assert {one.gate.decision for one in speakers.values()} == {"enrol"}, speakers
    assert summary.gated == {"unfit": 0, "unmet": {}, "decisions": {"enrol": 3}}
    assert {record.verdict for record in files.values()} == {"clean"}


def test_one_voice_under_two_names_is_asked_about(gated, heard, screener, folder, voice):
    for take in range(20, 23):
        path = folder / "again" / f"take{take}.wav"
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, voice(1, take), 16000, "PCM_16")
    _, _, unknown = gated(EnrolmentGate(EASY))
    assert {one.gate.nearest_same for one in unknown.values()} == {None}
    told = replace(screener.judge.calibration, same_voice=LogRatios(200.0, -180.0))
    _, _, speakers = gated(EnrolmentGate(EASY), replace(screener.judge, calibration=told))
    again, first = speakers["again"].gate, speakers["s1"].gate
    assert (again.nearest, first.nearest) == ("s1", "again")
    assert again.nearest_same == first.nearest_same > LIMITS.speaker.most_same_voice
    assert (again.decision, "may be the same voice" in again.why) == ("ask", True)
    assert speakers["s0"].gate.nearest_same < LIMITS.speaker.most_same_voice


@pytest.mark.parametrize("strict", [False, True])
def test_a_quiet_recording_is_a_note_or_a_verdict(gated, heard, folder, voice, strict):
    quiet = folder / "s1" / "take10.wav"
    soundfile.write(quiet, 0.01 * voice(1, 10), 16000, "PCM_16")
    summary, files, speakers = gated(EnrolmentGate(EASY, strict=strict))
    record = files["s1/take10.wav"]
    assert record.details.unmet == ("least_level_dbfs",)
    told = [one for one in record.findings if one.risk in ("advice", "unfit")]
    assert [one.risk for one in told] == ["unfit" if strict else "advice"]
    assert "at least -45 dBFS are needed" in told[0].why
    assert summary.gated["unmet"] == {"least_level_dbfs": 1}
    assert speakers["s1"].gate.decision in ("record more", "ask")  # the detector may doubt it, too
    assert speakers["s1"].gate.recordings == 2
    assert ("unfit" in summary.verdicts) == (strict and record.verdict == "unfit")


def test_a_folder_that_is_mostly_bad_blames_no_good_file(gated, heard, folder, voice):
    good = folder / "s1" / "take10.wav"
    for take in (11, 12):
        path = folder / "s1" / f"take{take}.wav"
        soundfile.write(path, 0.01 * voice(7, take), 16000, "PCM_16")  # alike, and unlike take 10
    _, plain, _ = gated(None)
    assert plain["s1/take10.wav"].verdict == "inconsistent", "else this test shows nothing"
    summary, files, speakers = gated(EnrolmentGate(EASY))
    assert good.exists()
    assert "inconsistent" not in [one.risk for one in files["s1/take10.wav"].findings]
    assert "most recordings are bad (2 of 3; 2 least_level_dbfs)" in speakers["s1"].gate.why
    assert any("most recordings of s1 fail the enrolment gate" in one for one in summary.notes)


def test_a_run_that_is_mostly_bad_says_so(gated, heard):
    summary, _, _ = gated(EnrolmentGate(LIMITS))  # a second of speech is too little for these
    (note,) = [one for one in summary.notes if "most of this folder" in one]
    assert "10 of 10 recordings, 10 of them least_" in note
    assert summary.gated["decisions"] == {"reject": 3}


def test_images_have_no_gate(screener):
    with pytest.raises(InputError, match="the enrolment gate got images, expected recordings"):
        replace(screener, adapter=ImageAdapter(), gate=EnrolmentGate(EASY))


def test_measuring_speech_changes_nothing_else(screener, folder, heard):
    recording = next(iter(FolderSource(folder)))
    plain = screener.measurer(recording)
    measurer = screener.measurer
    assert isinstance(measurer, FileMeasurer)
    both = replace(measurer, speech=True)(recording)
    assert np.array_equal(plain.measurement.evidence, both.measurement.evidence)
    assert (plain.facts, plain.speech) == (both.facts, None)


@pytest.fixture
def screen(folder, calibration, tmp_path, capsys):
    calibration.save(tmp_path / "my.calibration")
    options = ["--calibration", tmp_path / "my.calibration", "--fpr", "0.05", "--workers", "1"]

    def call(*more):
        arguments = ["screen", folder, "--out", tmp_path / "out", *options, "--no-report", *more]
        code = main([str(one) for one in arguments])
        return code, *capsys.readouterr()

    return call


def test_strict_failures_set_the_exit_code(screen, heard, tmp_path):
    assert screen()[0] == 0
    code, out, _ = screen("--gate", "defaults")
    assert code == 0
    assert "reject" in out
    assert "s of speech in 1.0 s, at least 2 s are needed" in out
    code, out, _ = screen("--strict", "--json")
    assert code == 3
    told = json.loads(out)
    assert told["verdicts"] == {"unfit": 10}
    assert told["gate"]["strict"] is True
    assert told["review"]["speakers"] == [
        {"speaker": name, "decision": "reject"} for name in ("s0", "s1", "s2")
    ]
    assert screen("--strict", "--fail-on", "adversarial")[0] == 0
    _, out, _ = screen("--strict", "--format", "junit")
    assert out.count('name="enrolment decision"') == out.count('type="reject"') == 3
    _, out, _ = screen("--gate", "defaults", "--format", "sarif")
    results = json.loads(out)["runs"][0]["results"]
    assert [(one["ruleId"], one["level"]) for one in results] == [("speaker/reject", "note")] * 3


def test_speakers_are_told_once_with_only_new(screen, heard, tmp_path):
    gate = tmp_path / "gate.toml"
    gate.write_text(
        "[recording]\nleast_speech_s = 0.5\nleast_snr_db = -20\nleast_bandwidth_hz = 0\n"
        "[speaker]\nleast_recordings = 4\nleast_speech_s = 0\nleast_cohesion = -1\n"
    )
    code, out, _ = screen("--gate", gate, "--strict", "--only-new")
    assert code == 3
    assert "3 usable recordings, at least 4 are needed" in " ".join(out.split())
    assert screen("--gate", gate, "--strict", "--only-new")[0] == 0
    assert screen("--gate", gate, "--strict")[0] == 3


def test_a_gate_in_the_screened_folder_is_refused(screen, folder):
    (folder / "gate.toml").write_text("")
    code, _, err = screen("--gate", folder / "gate.toml")
    assert code == 65
    assert "could lower the limits" in " ".join(err.split())
