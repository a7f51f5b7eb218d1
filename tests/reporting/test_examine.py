"""A flagged file is read again, and what is drawn of it is what was screened."""

from __future__ import annotations

import io
import re
from base64 import b64decode
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch

from nip_audio.core.adapter import Batch
from nip_audio.core.influence import input_influence
from nip_audio.errors import AudioError, CalibrationError, InputError, StateError
from nip_audio.reporting.examine import Examiner, examiner_of_run
from nip_audio.reporting.report import write_report
from nip_audio.reporting.run import ScreenedRun
from nip_audio.screening.records import Finding
from nip_audio.screening.sources import FolderSource


@pytest.fixture
def source(folder):
    return FolderSource(folder)


@pytest.fixture
def examiner(screener):
    """With the calibration, without a purifier."""
    return Examiner(screener.pretrained, screener.adapter, 0, screener.judge, None, 0.5)


@pytest.fixture
def flagged(screener, source):
    """The record of one file, which is called adversarial whatever its distance."""
    (record,) = screener.judge_files([source.find("s0/take10.wav")])
    return replace(record, findings=()).with_findings(Finding.of("adversarial", "for the test"))


def summary_of(screener):
    return screener.verdict_settings() | {"files": 1, "verdicts": {}}


def test_it_shows_the_beginning_and_the_evidence_of_the_whole(examiner, flagged, source, screener):
    examined = examiner.examine(flagged, source.find(flagged.id))
    assert examined.before.samples.shape == (8000,)
    assert examined.duration_s == 1.0
    assert examined.after is None
    assert examined.layer == "embedding"
    assert examined.before.neurons.shape == (192,)
    calibration = screener.judge.calibration
    measured = screener.measurer(source.find(flagged.id)).measurement
    noise, row, deviation = calibration.detector.farthest(measured)
    cell = examined.evidence.table[
        examined.evidence.noises.index(noise), examined.evidence.rows.index(row)
    ]
    assert cell == pytest.approx(deviation, rel=1e-4)
    assert np.nanmax(np.abs(examined.evidence.table)) == pytest.approx(abs(cell))


def test_its_html_plays_exactly_the_excerpt(examiner, flagged, source):
    examined = examiner.examine(flagged, source.find(flagged.id))
    html = examined.html()
    (data,) = re.findall(r'src="data:audio/flac;base64,([^"]+)"', html)
    samples, rate = soundfile.read(io.BytesIO(b64decode(data)), dtype="float32")
    assert rate == 16000
    np.testing.assert_array_equal(samples, examined.before.samples.numpy())
    assert "The first 0.5 of 1.0 seconds are shown." in html
    assert html.count("data:image/png") == 1


def test_a_purified_copy_is_beside_an_attacked_file_only(examiner, flagged, source, pretrained):
    whole = examiner_of_run(
        {"model_id": pretrained.model_id, "model": "x", "read": {}, "seed": 0, "calibration": "no"},
        pretrained,
        seconds=0.5,
    )
    assert whole.judge is None  # the model's own calibration is not this run's
    examined = whole.examine(flagged, source.find(flagged.id))
    assert not torch.equal(examined.after.samples, examined.before.samples)
    html = examined.html()
    assert html.count("<audio") == 3
    assert html.count("data:image/png") == 3
    assert "calibration of this run was not available" in html
    other = replace(flagged, findings=()).with_findings(Finding.of("damaged", "torn"))
    assert whole.examine(other, source.find(flagged.id)).after is None


def test_another_file_than_the_screened_one_is_not_shown(examiner, flagged, source):
    with pytest.raises(AudioError, match="not the one that was screened"):
        examiner.examine(replace(flagged, sha256="0" * 64), source.find(flagged.id))


def test_model_and_calibration_must_be_the_runs(screener, calibration, pretrained, tmp_path):
    path = tmp_path / "my.calibration"
    calibration.save(path)
    summary = summary_of(screener)
    found = examiner_of_run(summary, pretrained, calibration=path)
    assert found.judge.calibration.fingerprint == calibration.fingerprint
    assert found.judge.false_positive_rate == screener.judge.false_positive_rate
    with pytest.raises(StateError, match="pass `model`"):
        examiner_of_run(summary | {"model_id": "0" * 64}, pretrained)
    with pytest.raises(CalibrationError, match="pass `calibration`"):
        examiner_of_run(summary | {"calibration": "0" * 64}, pretrained, calibration=path)
    with pytest.raises(StateError):
        examiner_of_run(summary, pretrained, calibration=tmp_path / "none")
    with pytest.raises(InputError, match="more than 0"):
        examiner_of_run(summary, pretrained, seconds=0)


def test_details_are_bounded_and_a_lost_file_is_named(write_run, examiner, flagged, source, folder):
    gone = replace(flagged, id="s0/gone.wav", p_value=0.0)
    run = write_run([gone, flagged, replace(flagged, id="s0/take11.wav", p_value=1.0)])
    drawn = []
    page = write_report(run, source, examiner, details=2, progress=drawn.append)
    html = page.read_text(encoding="utf-8")
    assert drawn == ["s0/gone.wav", "s0/take10.wav"]
    assert re.findall(r'<template id="detail-(\d+)">', html) == ["0", "1"]
    assert "This file could not be drawn: it does not exist" in html
    assert html.count("<audio") == 1
    with pytest.raises(InputError, match="no source"):
        write_report(run, None, examiner)


def test_a_screening_can_be_reported(screener, source, examiner, tmp_path):
    screener.screen(source, tmp_path / "run")
    run = ScreenedRun.open(tmp_path / "run")
    html = write_report(run, source, examiner, details=1).read_text(encoding="utf-8")
    assert html.count("<template") == min(1, run.summary["flagged"])
    assert screener.pretrained.model_id in html
    assert screener.judge.calibration.fingerprint in html


@torch.no_grad()
def test_input_influence_of_a_linear_decision_is_its_terms(embedding_model, generator):
    batch = embedding_model.to_input(Batch(torch.randn(1, 8000, generator=generator) * 0.1))
    influence = input_influence(embedding_model, batch)
    assert influence.shape == batch.x.shape
    # the derivative of y along x itself, by finite differences
    step = 1e-3
    before = embedding_model.embed_input(batch)
    axis = torch.nn.functional.normalize(before, dim=1)
    up, down = (embedding_model.embed_input(batch.with_x(batch.x * (1 + s))) for s in (step, -step))
    slope = float((up - down) @ axis.T) / (2 * step)
    assert float(influence.sum()) == pytest.approx(slope, rel=0.02)
