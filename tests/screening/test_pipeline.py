from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from nip_audio.errors import InputError, OutputError, ResumeError
from nip_audio.screening.pipeline import Screener
from nip_audio.screening.records import ScreenRecord

DOCS = Path(__file__).parents[2] / "docs" / "json.md"


def lines(out: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]


def test_writes_one_record_a_file_in_sorted_order(screener, folder, tmp_path):
    seen = []
    result = screener.screen(folder, tmp_path / "out", progress=seen.append)
    written = lines(tmp_path / "out")
    expected = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*.*"))
    assert [r["id"] for r in written] == expected
    assert [r.id for r in seen] == expected
    assert [r.to_json() for r in result.records] == [
        ScreenRecord.from_line(json.dumps(r)).to_json() for r in written
    ]
    assert result.summary.files == 10
    assert result.summary.speakers == 3
    assert json.loads((tmp_path / "out/summary.json").read_text())["files"] == 10


def test_documents_every_field_of_a_record():
    documented = set(re.findall(r"`(\w+)`", DOCS.read_text()))
    assert {f.name for f in fields(ScreenRecord)} <= documented


def test_judges_a_file_the_same_alone_and_in_a_folder(screener, folder, tmp_path):
    together = {r.id: r for r in screener.screen(folder, tmp_path / "out").records}
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copy(folder / "s1/take11.wav", alone / "renamed.wav")
    (record,) = screener.screen(alone, tmp_path / "out2").records
    assert record.distance == together["s1/take11.wav"].distance
    assert record.consistency is None  # flat: there is nobody to compare with


def test_flags_another_voice_in_a_folder_and_only_that(screener, folder, voice, tmp_path):
    soundfile.write(folder / "s1/take11.wav", voice(7, 11), 16000, "PCM_16")
    records = {r.id: r for r in screener.screen(folder, tmp_path / "out").records}
    scores = {
        name: records[f"s1/{name}.wav"].consistency for name in ("take10", "take11", "take12")
    }
    assert scores["take11"] < min(scores["take10"], scores["take12"]) - 0.01
    threshold = screener.judge.calibration.verification_threshold
    assert records["s1/take11.wav"].consistency < threshold
    assert any("unlike the rest" in reason for reason in records["s1/take11.wav"].reasons)


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
    result = screener.screen(folder, tmp_path / "out")
    found = {
        r.id.removeprefix("bad/"): r.error["code"] for r in result.records if r.error is not None
    }
    assert found == expected
    assert result.summary.failed == len(expected)
    judged = [r for r in result.records if r.error is None]
    assert len(judged) == 11
    assert all(r.distance is not None for r in judged)
    assert all(r.error["found"] and r.error["remedy"] for r in result.records if r.error)


@pytest.mark.parametrize("keep", [0, 1, 4, 7])
@pytest.mark.parametrize("torn", [b"", b'{"id": "s2/ta'])
def test_continues_to_the_records_of_an_undisturbed_run(screener, folder, tmp_path, keep, torn):
    screener.screen(folder, tmp_path / "whole")
    whole = (tmp_path / "whole/results.jsonl").read_bytes()
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    (tmp_path / "cut/summary.json").unlink()
    (tmp_path / "cut/results.jsonl").write_bytes(
        b"".join(whole.splitlines(keepends=True)[:keep]) + torn
    )
    screener.screen(folder, tmp_path / "cut")
    assert (tmp_path / "cut/results.jsonl").read_bytes() == whole
    assert (tmp_path / "cut/summary.json").read_bytes() == (
        tmp_path / "whole/summary.json"
    ).read_bytes()


def test_measures_nothing_anew_when_a_run_is_complete(screener, folder, tmp_path, monkeypatch):
    screener.screen(folder, tmp_path / "out")
    monkeypatch.setattr(Screener, "judge_group", lambda *_: pytest.fail("measured again"))
    assert len(screener.screen(folder, tmp_path / "out").records) == 10


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda s: replace(s, seed=1), "seed"),
        (lambda s: replace(s, judge=replace(s.judge, false_positive_rate=0.1)), "false_positive"),
        (
            lambda s: replace(
                s,
                judge=replace(
                    s.judge,
                    calibration=replace(
                        s.judge.calibration, distances=s.judge.calibration.distances * 2
                    ),
                ),
            ),
            "calibration",
        ),
    ],
)
def test_refuses_to_continue_with_other_settings(screener, folder, tmp_path, change, named):
    screener.screen(folder, tmp_path / "out")
    before = (tmp_path / "out/results.jsonl").read_bytes()
    with pytest.raises(ResumeError, match=named):
        change(screener).screen(folder, tmp_path / "out")
    assert (tmp_path / "out/results.jsonl").read_bytes() == before


def test_refuses_a_folder_that_holds_something_else(screener, folder, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/thesis.txt").write_text("precious")
    with pytest.raises(OutputError, match="not empty"):
        screener.screen(folder, tmp_path / "out")


def test_refuses_a_damaged_results_file(screener, folder, tmp_path):
    screener.screen(folder, tmp_path / "out")
    path = tmp_path / "out/results.jsonl"
    path.write_bytes(b"no json\n" + path.read_bytes())
    with pytest.raises(ResumeError, match="no screen record"):
        screener.screen(folder, tmp_path / "out")


def test_leaves_the_global_generator_alone(screener, folder, tmp_path):
    before = torch.get_rng_state()
    screener.screen(folder, tmp_path / "out")
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.slow
def test_survives_being_killed(calibration, folder, tmp_path):
    calibration.save(tmp_path / "quick.calibration")

    def start(out: str) -> subprocess.Popen[bytes]:
        arguments = ["screen", folder, "--out", tmp_path / out, "--fpr", "0.05"]
        arguments += ["--calibration", tmp_path / "quick.calibration"]
        return subprocess.Popen(
            [sys.executable, "-m", "nip_audio", *map(str, arguments)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    results = tmp_path / "killed/results.jsonl"
    for records_first in (1, 5):
        process = start("killed")
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            if results.exists() and results.read_bytes().count(b"\n") >= records_first:
                break
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert start("killed").wait() in (0, 1)
    assert start("undisturbed").wait() in (0, 1)
    assert results.read_bytes() == (tmp_path / "undisturbed/results.jsonl").read_bytes()


def test_an_empty_folder_does_not_look_clean(screener, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/notes.txt").write_text("no audio")
    with pytest.raises(InputError, match="no audio file below"):
        screener.screen(tmp_path / "empty", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_recording_below_the_models_rate_is_not_judged(screener, folder, voice, tmp_path):
    narrow = voice(1, 11)[::2]
    soundfile.write(folder / "s1/take11.wav", narrow, 8000, "PCM_16")
    records = {r.id: r for r in screener.screen(folder, tmp_path / "out").records}
    record = records["s1/take11.wav"]
    assert record.verdict == "out_of_domain"
    assert any("nothing above 4 kHz" in reason for reason in record.reasons)
    assert "resampled from 8000 Hz" in record.changes
