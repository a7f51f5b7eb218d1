from __future__ import annotations

import json
import os
import re
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from nip_audio import ReadSettings, WaveformAdapter
from nip_audio.detectors.backdoor import BackdoorJudgement, GroupFinding
from nip_audio.errors import InputError, OutputError, ResumeError
from nip_audio.screening import backdoor
from nip_audio.screening.calibration import Calibration
from nip_audio.screening.details import DETAILS
from nip_audio.screening.engines.local import LocalEngine
from nip_audio.screening.journal import Journal, locked
from nip_audio.screening.measure import FileMeasurer
from nip_audio.screening.records import SpeakerRecord
from nip_audio.screening.sources import FolderSource, ManifestSource
from tests.processes import Started, start_python

WRITTEN = ("results.jsonl", "speakers.jsonl", "summary.json")
DOCS = Path(__file__).parents[2] / "docs" / "reference" / "json.md"


def lines(out: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]


def test_writes_one_record_a_file_in_sorted_order(screener, folder, tmp_path):
    seen = []
    result = screener.screen(FolderSource(folder), tmp_path / "out", progress=seen.append)
    written = lines(tmp_path / "out")
    expected = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*.*"))
    assert [r["id"] for r in written] == expected
    assert seen == expected
    assert [json.loads(r.to_line()) for r in result.results.files()] == written
    assert result.summary.files == 10
    assert result.summary.speakers == 3
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert summary["files"] == 10
    # what a verdict depends on and what came out share a file, and no name
    assert not screener.verdict_settings().keys() & result.summary.to_json().keys()


def test_documents_every_field_of_a_record():
    documented = set(re.findall(r"`(\w+)`", DOCS.read_text()))
    assert {name for kind in DETAILS for name in kind.written} <= documented


def test_judges_a_file_the_same_alone_and_in_a_folder(screener, folder, tmp_path):
    together = {
        r.id: r for r in screener.screen(FolderSource(folder), tmp_path / "out").results.files()
    }
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copy(folder / "s1/take11.wav", alone / "renamed.wav")
    (record,) = screener.screen(FolderSource(alone), tmp_path / "out2").results.files()
    assert record.distance == together["s1/take11.wav"].distance
    assert record.details.consistency is None  # flat: there is nobody to compare with


def test_flags_another_voice_in_a_folder_and_only_that(screener, folder, voice, tmp_path):
    soundfile.write(folder / "s1/take11.wav", voice(7, 11), 16000, "PCM_16")
    records = {
        r.id: r for r in screener.screen(FolderSource(folder), tmp_path / "out").results.files()
    }
    scores = {
        name: records[f"s1/{name}.wav"].details.consistency
        for name in ("take10", "take11", "take12")
    }
    assert scores["take11"] < min(scores["take10"], scores["take12"]) - 0.01
    threshold = screener.judge.calibration.verification_threshold
    assert records["s1/take11.wav"].details.consistency < threshold
    unlike = "does not match the speaker's other files"
    assert any(unlike in why for why in records["s1/take11.wav"].why)


def make_bad_files(folder: Path, voice) -> dict[str, str]:
    """Put one of every bad kind into the folder; return the expected error codes."""
    bad = folder / "bad"
    bad.mkdir()
    good = voice(1, 1)

    def write(name: str, samples: np.ndarray, subtype: str = "PCM_16") -> None:
        soundfile.write(bad / name, samples, 16000, subtype)

    (bad / "zero_bytes.wav").touch()
    write("zero_samples.wav", np.zeros(0, np.float32))
    write("10ms.wav", good[:160])
    write("silence.wav", np.zeros(16000, np.float32))
    write("dc.wav", np.full(16000, 0.3, np.float32))
    write("nan.wav", np.where(np.arange(16000) == 5, np.nan, good), "FLOAT")
    write("inf.wav", np.where(np.arange(16000) == 5, np.inf, good), "FLOAT")
    write("clipped.wav", np.sign(good) * 1.0)
    write("whole.wav", good)
    (bad / "half_header.wav").write_bytes((bad / "whole.wav").read_bytes()[:20])
    (bad / "text.mp3").write_text("this is no music\n" * 50)
    (bad / "phone.m4a").write_bytes(b"\x00\x00\x00\x20ftypM4A " + bytes(100))
    (bad / "folder.wav").mkdir()
    (bad / "dead_link.wav").symlink_to(bad / "nowhere")
    (bad / "loop_a.wav").symlink_to(bad / "loop_b.wav")
    (bad / "loop_b.wav").symlink_to(bad / "loop_a.wav")
    (bad / "up").symlink_to(folder, target_is_directory=True)
    write("two\nlines.wav", good[:160])
    write("[red]ünïcode✓.wav", good[:160])
    os.mkfifo(bad / "pipe.wav")
    soundfile.write(bad / "two_hours.flac", np.tile(good, 7200), 16000)
    return {
        "zero_bytes.wav": "empty",
        "zero_samples.wav": "empty",
        "10ms.wav": "too_short",
        "silence.wav": "silent",
        "dc.wav": "silent",
        "nan.wav": "not_finite",
        "inf.wav": "not_finite",
        "clipped.wav": "clipped",
        "half_header.wav": "not_audio",
        "text.mp3": "not_audio",
        "phone.m4a": "not_audio",
        "folder.wav": "not_a_file",
        "dead_link.wav": "missing",
        "loop_a.wav": "unreadable",
        "loop_b.wav": "unreadable",
        "two\nlines.wav": "too_short",
        "[red]ünïcode✓.wav": "too_short",
        "pipe.wav": "not_a_file",
        "two_hours.flac": "too_long",
    }


def test_turns_every_bad_file_into_a_record_and_judges_the_rest(screener, folder, voice, tmp_path):
    expected = make_bad_files(folder, voice)
    result = screener.screen(FolderSource(folder), tmp_path / "out")
    found = {
        r.id.removeprefix("bad/"): r.error["code"]
        for r in result.results.files()
        if r.error is not None
    }
    assert found == expected
    assert result.summary.failed == len(expected)
    judged = [r for r in result.results.files() if r.error is None]
    assert len(judged) == 11
    assert all(r.distance is not None for r in judged)
    assert all(r.error["found"] and r.error["remedy"] for r in result.results.files() if r.error)


@pytest.mark.parametrize("keep", [0, 1, 4, 7])
@pytest.mark.parametrize("torn", [b"", b'{"id": "s2/ta'])
def test_continues_to_the_records_of_an_undisturbed_run(screener, folder, tmp_path, keep, torn):
    screener.screen(FolderSource(folder), tmp_path / "whole")
    measured = (tmp_path / "whole/measured.jsonl").read_bytes()
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    for name in WRITTEN:
        (tmp_path / "cut" / name).unlink()
    (tmp_path / "cut/measured.jsonl").write_bytes(
        b"".join(measured.splitlines(keepends=True)[:keep]) + torn
    )
    screener.screen(FolderSource(folder), tmp_path / "cut")
    for name in (*WRITTEN, "measured.jsonl"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_measures_nothing_anew_when_a_run_is_complete(screener, folder, tmp_path, monkeypatch):
    screener.screen(FolderSource(folder), tmp_path / "out")
    monkeypatch.setattr(FileMeasurer, "__call__", lambda *_: pytest.fail("measured again"))
    assert screener.screen(FolderSource(folder), tmp_path / "out").summary.files == 10


def test_measures_what_is_new_or_has_changed_and_forgets_what_is_gone(
    screener, folder, voice, tmp_path, monkeypatch
):
    screener.screen(FolderSource(folder), tmp_path / "out")
    soundfile.write(folder / "s1/take11.wav", voice(1, 13, 1.5), 16000, "PCM_16")
    soundfile.write(folder / "s1/take14.wav", voice(1, 14), 16000, "PCM_16")
    (folder / "s2/take10.wav").unlink()
    measured, real = [], FileMeasurer.__call__
    monkeypatch.setattr(
        FileMeasurer, "__call__", lambda self, r: (measured.append(r.id), real(self, r))[1]
    )
    again = screener.screen(FolderSource(folder), tmp_path / "out")
    assert measured == ["s1/take11.wav", "s1/take14.wav"]
    fresh = screener.screen(FolderSource(folder), tmp_path / "fresh")
    assert list(again.results.files()) == list(fresh.results.files())
    assert again.summary == fresh.summary


def test_judges_anew_at_another_rate_without_measuring(screener, folder, tmp_path, monkeypatch):
    screener.screen(FolderSource(folder), tmp_path / "out")
    monkeypatch.setattr(FileMeasurer, "__call__", lambda *_: pytest.fail("measured again"))
    stricter = replace(screener, judge=replace(screener.judge, false_positive_rate=0.5))
    stricter.screen(FolderSource(folder), tmp_path / "out")
    assert json.loads((tmp_path / "out/summary.json").read_text())["false_positive_rate"] == 0.5


def test_an_unreadable_file_is_tried_again(screener, folder, tmp_path):
    target = folder / "s1/take11.wav"
    kept = target.read_bytes()
    target.unlink()
    target.symlink_to(folder / "nowhere.wav")
    first = screener.screen(FolderSource(folder), tmp_path / "out")
    assert first.summary.errors == {"missing": 1}
    (folder / "nowhere.wav").write_bytes(kept)
    assert screener.screen(FolderSource(folder), tmp_path / "out").summary.errors == {}


def test_two_runs_do_not_write_into_one_folder(screener, folder, tmp_path):
    (tmp_path / "out").mkdir()
    with locked(tmp_path / "out"), pytest.raises(OutputError, match="another run is writing"):
        screener.screen(FolderSource(folder), tmp_path / "out")
    assert screener.screen(FolderSource(folder), tmp_path / "out").summary.files == 10


def test_worker_processes_write_the_same(screener, folder, tmp_path):
    make_bad = folder / "s1/broken.wav"
    make_bad.write_text("no audio")
    screener.screen(FolderSource(folder), tmp_path / "one")
    many = replace(screener, engine=LocalEngine(2))
    many.screen(FolderSource(folder), tmp_path / "two")
    for name in (*WRITTEN, "measured.jsonl"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_a_manifest_is_screened_speaker_by_speaker(screener, folder, tmp_path):
    recordings = list(FolderSource(folder))
    mixed = recordings[1::2] + recordings[::2]
    result = screener.screen(ManifestSource(tmp_path / "m.csv", mixed), tmp_path / "out")
    expected = screener.screen(FolderSource(folder), tmp_path / "other")
    by_id = {record.id: record for record in expected.results.files()}
    found = list(result.results.files())
    assert {record.id: record.verdict for record in found} == {
        name: record.verdict for name, record in by_id.items()
    }
    assert [s.speaker for s in result.results.speakers()] == ["s0", "s1", "s2"]
    with pytest.raises(InputError, match="twice"):
        ManifestSource(tmp_path / "m.csv", [*mixed, mixed[0]])


def test_finds_a_recording_under_two_speakers_whatever_was_done_to_it(
    screener, folder, voice, tmp_path
):
    rng = np.random.default_rng(0)  # takes of these voices are too much alike without
    for path in sorted(folder.rglob("take*.wav")):
        samples = soundfile.read(path)[0]
        hissing = samples + 0.2 * rng.standard_normal(len(samples))
        soundfile.write(path, hissing, 16000, "PCM_16")
    shutil.copy(folder / "s0/take10.wav", folder / "s1/copy.wav")
    quieter = 0.3 * soundfile.read(folder / "s2/take11.wav")[0][2000:]
    soundfile.write(folder / "s0/quieter.ogg", quieter, 16000)
    result = screener.screen(FolderSource(folder), tmp_path / "out")
    twins = {r.id: r.duplicate_of for r in result.results.files() if r.duplicate_of}
    assert twins == {
        "s0/take10.wav": ("s1/copy.wav",),
        "s1/copy.wav": ("s0/take10.wav",),
        "s0/quieter.ogg": ("s2/take11.wav",),
        "s2/take11.wav": ("s0/quieter.ogg",),
    }
    copy = next(r for r in result.results.files() if r.id == "s1/copy.wav")
    same = "it is the same recording as 's0/take10.wav' of speaker s0 (correlation of the samples"
    assert any(f"{same}: 1.00)" in why for why in copy.why)


def test_a_file_that_the_model_cannot_answer_is_a_record(screener, folder, tmp_path, monkeypatch):
    kind, spoilt = type(screener.kind), "s1/take11.wav"
    real = kind.measure

    def measure(self, pretrained, item, *args, **kwargs):
        found = real(self, pretrained, item, *args, **kwargs)
        if item.content_sha256 == content:
            found = replace(found, embedding=found.embedding * np.nan)
        return found

    content = screener.adapter.read(FolderSource(folder).find(spoilt)).content_sha256
    monkeypatch.setattr(kind, "measure", measure)
    first = screener.screen(FolderSource(folder), tmp_path / "out")
    (record,) = (r for r in first.results.files() if r.id == spoilt)
    assert (record.verdict, record.error["code"]) == ("error", "not_finite")
    again = screener.screen(FolderSource(folder), tmp_path / "out")  # what was kept can be read
    assert again.summary.verdicts == first.summary.verdicts


def test_looks_for_triggers_when_told_to(screener, folder, tmp_path, monkeypatch):
    looking = replace(screener, backdoor=True)
    few = looking.screen(FolderSource(folder), tmp_path / "few")
    assert few.summary.backdoor.startswith("not judged: ")
    assert few.summary.verdicts.get("poisoned") is None
    (target,) = (f for f in few.results.files() if f.id == "s1/take11.wav")
    journal = Journal(tmp_path / "few/measured.jsonl")
    named = journal.read(target.id).trigger.named
    journal.__exit__()

    def accuse(evidence):
        finding = GroupFinding(named, 12, 40.0, "changes", 8.0, 1.0, 12.6, 1, accused=True)
        mine = np.array([f.id == target.id for f in few.results.files()])
        return BackdoorJudgement((finding,), np.where(mine, 0.9, 0.0), 6.0)

    monkeypatch.setattr(backdoor, "judge_triggers", accuse)
    result = looking.screen(FolderSource(folder), tmp_path / "few")
    records = {record.id: record for record in result.results.files()}
    assert records[target.id].verdict == "poisoned"
    (why,) = (why for why in records[target.id].why if "two groups" in why)
    assert "0.90; score 12.6 from alarm 40.0 and unlikeness 8.0" in why
    assert result.summary.backdoor == "1 of 10 files accused"
    with pytest.raises(ResumeError, match="triggers"):
        screener.screen(FolderSource(folder), tmp_path / "few")


def test_says_of_each_speaker_what_is_wrong(screener, folder, tmp_path):
    for take in (10, 11):
        (folder / f"s2/take{take}.wav").write_text("no audio")
    result = screener.screen(FolderSource(folder), tmp_path / "out")
    speakers = {speaker.speaker: speaker for speaker in result.results.speakers()}
    assert (speakers["s2"].files, speakers["s2"].failed) == (3, 2)
    assert [finding.risk for finding in speakers["s2"].findings] == ["lonely"]
    assert speakers["s0"].findings == ()
    assert SpeakerRecord.from_line(speakers["s2"].to_line()) == speakers["s2"]


def test_watches_a_folder_that_keeps_filling(screener, folder, voice, tmp_path):
    late = folder / "s1/late.wav"
    whole = tmp_path / "late.wav"
    soundfile.write(whole, voice(1, 15), 16000, "PCM_16")

    def looks():
        yield  # nothing is known to have come to rest yet
        yield
        late.write_bytes(whole.read_bytes()[:5000])
        yield
        late.write_bytes(whole.read_bytes())  # it still grows: it is left alone
        yield
        yield
        yield  # nothing has happened: nothing is written

    found = [
        (result.summary.files, result.summary.failed)
        for result in screener.watch(FolderSource(folder), tmp_path / "out", looks=looks())
    ]
    assert found == [(10, 0), (11, 0)]
    assert (tmp_path / "out/results.jsonl").read_bytes() == (
        screener.screen(FolderSource(folder), tmp_path / "fresh").results.folder / "results.jsonl"
    ).read_bytes()


def with_draws(calibration: Calibration, draws: int) -> Calibration:
    probe = calibration.detector.probe
    more = replace(probe, config=replace(probe.config, draws=draws))
    return replace(calibration, detector=replace(calibration.detector, probe=more))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda s: replace(s, seed=1), "seed"),
        (
            lambda s: replace(
                s,
                judge=replace(
                    s.judge,
                    calibration=with_draws(s.judge.calibration, 3),
                ),
            ),
            "nccr",
        ),
        (lambda s: replace(s, adapter=WaveformAdapter(ReadSettings(max_duration_s=9))), "read"),
    ],
)
def test_refuses_to_continue_with_other_settings(screener, folder, tmp_path, change, named):
    screener.screen(FolderSource(folder), tmp_path / "out")
    before = (tmp_path / "out/results.jsonl").read_bytes()
    with pytest.raises(ResumeError, match=named):
        change(screener).screen(FolderSource(folder), tmp_path / "out")
    assert (tmp_path / "out/results.jsonl").read_bytes() == before


def test_refuses_a_folder_that_holds_something_else(screener, folder, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/thesis.txt").write_text("precious")
    with pytest.raises(OutputError, match="not empty"):
        screener.screen(FolderSource(folder), tmp_path / "out")


@pytest.mark.parametrize("line", [b"no json", b"{}", b"[]", b"null", b'{"facts": null}'])
def test_leaves_out_what_is_no_line_of_a_journal(screener, folder, tmp_path, line, caplog):
    screener.screen(FolderSource(folder), tmp_path / "out")
    before = {name: (tmp_path / "out" / name).read_bytes() for name in WRITTEN}
    path = tmp_path / "out/measured.jsonl"
    path.write_bytes(line + b"\n" + path.read_bytes())
    screener.screen(FolderSource(folder), tmp_path / "out")
    assert {name: (tmp_path / "out" / name).read_bytes() for name in WRITTEN} == before
    assert "1 lines are damaged" in caplog.text


def test_leaves_the_global_generator_alone(screener, folder, tmp_path):
    before = torch.get_rng_state()
    screener.screen(FolderSource(folder), tmp_path / "out")
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.slow
def test_survives_being_killed(calibration, folder, tmp_path):
    calibration.save(tmp_path / "quick.calibration")

    def start(out: str) -> Started:
        arguments = ["screen", folder, "--out", tmp_path / out, "--fpr", "0.05", "--seed", "0"]
        arguments += ["--calibration", tmp_path / "quick.calibration"]
        return start_python("nip_audio", *arguments, log=Path(os.devnull))

    measured = tmp_path / "killed/measured.jsonl"
    for records_first in (1, 5):
        process = start("killed")
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            if measured.exists() and measured.read_bytes().count(b"\n") >= records_first:
                break
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert start("killed").wait() in (0, 1)
    assert start("undisturbed").wait() in (0, 1)
    for name in (*WRITTEN, "measured.jsonl"):
        undisturbed = (tmp_path / "undisturbed" / name).read_bytes()
        assert (tmp_path / "killed" / name).read_bytes() == undisturbed


def test_an_empty_folder_does_not_look_clean(screener, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/notes.txt").write_text("no audio")
    with pytest.raises(InputError, match="no audio file in"):
        screener.screen(FolderSource(tmp_path / "empty"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_recording_below_the_models_rate_is_not_clean(screener, folder, voice, tmp_path):
    narrow = voice(1, 11)[::2]
    soundfile.write(folder / "s1/take11.wav", narrow, 8000, "PCM_16")
    records = {
        r.id: r for r in screener.screen(FolderSource(folder), tmp_path / "out").results.files()
    }
    record = records["s1/take11.wav"]
    assert "out_of_domain" in {finding.risk for finding in record.findings}
    assert record.verdict != "clean"
    assert any("nothing above 4 kHz" in why for why in record.why)
    assert "resampled from 8000 Hz" in record.changes


def test_a_run_says_which_calibration_judged_last(screener, calibration, folder, tmp_path):
    other = replace(calibration, verification_threshold=0.9)
    for one in (calibration, other):
        judge = replace(screener.judge, calibration=one)
        replace(screener, judge=judge).screen(FolderSource(folder), tmp_path / "out")
        run = json.loads((tmp_path / "out/run.json").read_text())
        assert run["calibration"] == one.fingerprint
    assert calibration.fingerprint != other.fingerprint
