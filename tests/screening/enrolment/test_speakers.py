"""Cohesion, another speaker's voice, and what to do with a speaker."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from nip_audio.detectors.consistency import consistency_scores
from nip_audio.screening.calibration import Calibration
from nip_audio.screening.details import RecordingDetails
from nip_audio.screening.enrolment.limits import GateLimits
from nip_audio.screening.enrolment.speakers import (
    Nearest,
    Voices,
    cohesion,
    decide,
    fit_same_voice,
    nearest_voices,
)
from nip_audio.screening.recordings import voices_of
from nip_audio.screening.records import Finding, ScreenRecord

LIMITS = GateLimits.of(None).speaker
THRESHOLD = 0.5


def around(centre: np.ndarray, count: int, spread: float, seed: int = 0) -> np.ndarray:
    rows = centre + spread * np.random.default_rng(seed).standard_normal((count, len(centre)))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


ALICE = around(np.eye(16)[0], 6, 0.1)


def record(number: int, *, speech_s: float = 4.0, unmet=(), risk=None) -> ScreenRecord:
    details = RecordingDetails(speech_s=speech_s, unmet=tuple(unmet))
    findings = () if risk is None else (Finding.of(risk, "…"),)
    return ScreenRecord(f"a{number}", "alice", "clean", details=details).with_findings(*findings)


def decided(records, nearest=None, embeddings=ALICE):
    rows = {one.id: row for one, row in zip(records, embeddings, strict=False)}
    return decide(records, rows, nearest, LIMITS, THRESHOLD)


def test_cohesion_is_the_mean_cosine_of_the_pairs():
    angle = np.radians([0.0, 60.0, 90.0])
    value, interval = cohesion(np.stack([np.cos(angle), np.sin(angle)], axis=1))
    assert value == pytest.approx((0.5 + 0.0 + np.cos(np.pi / 6)) / 3)
    assert interval is not None
    assert 0.0 <= interval.low <= value <= interval.high <= np.cos(np.pi / 6)


def test_copies_that_a_bootstrap_draws_are_no_pairs():
    value, interval = cohesion(np.eye(5))
    assert (value, interval.low, interval.high) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize(("count", "known", "interval"), [(1, False, False), (2, True, False)])
def test_few_recordings_have_no_interval(count, known, interval):
    value, found = cohesion(ALICE[:count])
    assert (value is not None, found is not None) == (known, interval)


def test_enough_good_recordings_are_enrolled():
    gate = decided([record(i) for i in range(3)])
    assert (gate.decision, gate.recordings, gate.speech_s) == ("enrol", 3, 12.0)
    assert gate.cohesion_low <= gate.cohesion <= gate.cohesion_high


@pytest.mark.parametrize(
    ("records", "words"),
    [
        ([record(i, speech_s=6.0) for i in range(2)], "2 usable recordings, at least 3"),
        ([record(i, speech_s=3.3) for i in range(3)], "9.9 s of speech in all, at least 10 s"),
    ],
)
def test_too_little_means_record_more(records, words):
    gate = decided(records)
    assert gate.decision == "record more"
    assert words in gate.why


def test_exactly_enough_is_enough():
    assert (
        decided([record(0, speech_s=4.0), record(1), record(2, speech_s=2.0)]).decision == "enrol"
    )


def test_a_recording_that_fails_is_left_out():
    records = [*(record(i) for i in range(3)), record(3, unmet=["least_snr_db"])]
    gate = decided(records)
    assert (gate.decision, gate.recordings) == ("enrol", 3)
    assert "leave out the other 1" in gate.why


@pytest.mark.parametrize("risk", ["inconsistent", "duplicate", "adversarial", "poisoned"])
def test_who_may_be_somebody_else_is_a_question(risk):
    gate = decided([*(record(i) for i in range(4)), record(4, risk=risk)])
    assert gate.decision == "ask"
    assert "a4" in gate.why


def test_two_people_in_one_recording_are_a_question():
    gate = decided([*(record(i) for i in range(4)), record(4, unmet=["least_part_cosine"])])
    assert gate.decision == "ask"


def test_where_most_disagree_nobody_is_blamed():
    records = [record(0), *(record(i, risk="inconsistent") for i in range(1, 4))]
    gate = decided(records)
    assert gate.decision == "ask"
    assert "not possible to tell which are right" in gate.why


def test_where_most_are_bad_it_is_said():
    records = [record(0), *(record(i, unmet=["least_snr_db"]) for i in range(1, 4))]
    gate = decided(records)
    assert gate.decision == "record more"
    assert "most recordings are bad (3 of 4; 3 least_snr_db)" in gate.why


def test_nothing_usable_or_mostly_attacked_is_rejected():
    assert decided([record(i, unmet=["least_snr_db"]) for i in range(3)]).decision == "reject"
    attacked = [record(0), *(record(i, risk="adversarial") for i in range(1, 3))]
    assert decided(attacked).decision == "reject"


def test_low_cohesion_is_a_question():
    angle = np.radians([0.0, 50.0, 100.0])  # cosines .64, .64 and -.17
    rows = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    gate = decided([record(i) for i in range(3)], embeddings=rows)
    assert gate.cohesion == pytest.approx((2 * np.cos(np.radians(50)) + np.cos(angle[2])) / 3)
    assert (gate.decision, "agree little" in gate.why) == ("ask", True)


@pytest.mark.parametrize(
    ("same", "decision"),
    [(LIMITS.most_same_voice, "enrol"), (LIMITS.most_same_voice + 1e-6, "ask"), (None, "enrol")],
)
def test_another_name_for_one_voice_is_a_question(same, decision):
    gate = decided([record(i) for i in range(3)], Nearest("bob", 0.7, same))
    assert (gate.decision, gate.nearest, gate.nearest_same) == (
        decision,
        "bob",
        None if same is None else pytest.approx(same),
    )


SAME = np.random.default_rng(0).normal(0.8, 0.08, 200)
DIFFERENT = np.random.default_rng(1).normal(0.2, 0.12, 1000)


def test_probabilities_are_calibrated_for_even_odds():
    classifier = fit_same_voice(SAME, DIFFERENT)
    cosines = np.linspace(-1, 1, 41)[:, None]
    probabilities = classifier.predict_proba(cosines)[:, 1]
    assert (np.diff(probabilities) > 0).all()
    drawn = np.random.default_rng(2)
    fresh = np.r_[drawn.normal(0.8, 0.08, 2000), drawn.normal(0.2, 0.12, 2000)]
    guessed = classifier.predict_proba(fresh[:, None])[:, 1]
    # as many as the probabilities promise, within a few standard errors of 4,000 draws
    assert guessed.mean() == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize(("same", "different"), [(19, 1000), (200, 19)])
def test_few_cosines_are_not_evaluated(same, different):
    assert fit_same_voice(SAME[:same], DIFFERENT[:different]) is None


def test_the_nearest_speaker_is_found_with_a_probability():
    voices = Voices()
    for name, centre, seed in (("alice", 0, 1), ("bob", 1, 2), ("alicia", 0, 3)):
        for row in around(np.eye(16)[centre], 4, 0.1, seed):
            voices.add(name, row)
    found = nearest_voices(voices, SAME, DIFFERENT)
    assert (found["alice"].speaker, found["alicia"].speaker) == ("alicia", "alice")
    assert found["alice"].same > 0.95 > 0.5 > found["bob"].same
    unknown = nearest_voices(voices, SAME, np.zeros(0))
    assert unknown["alice"].same is None
    assert unknown["alice"].cosine == found["alice"].cosine


def test_a_speaker_alone_has_nobody_near():
    voices = Voices()
    voices.add("alice", ALICE[0])
    assert nearest_voices(voices, SAME, DIFFERENT) == {}


def test_the_core_can_be_taken_from_some_recordings():
    bad = around(np.eye(16)[5], 4, 0.1)  # alike each other because all are bad
    rows = np.concatenate([ALICE[:2], bad])
    assert consistency_scores(rows)[:2].max() < THRESHOLD < consistency_scores(rows)[2:].min()
    among = consistency_scores(rows, among=[0, 1])
    assert among[:2].min() > THRESHOLD > among[2:].max()


def test_a_calibration_knows_the_cosines_of_two_voices():
    rows = np.eye(3)[[0, 0, 1]]
    found = voices_of(["ann", "ann", "bob"], rows)["differences"]
    assert found.tolist() == [0.0, 0.0, 0.0]  # two of Ann's to Bob, one of Bob's to Ann
    many = np.random.default_rng(0).standard_normal((200, 8))
    kept = voices_of([str(i // 2) for i in range(200)], many)["differences"]
    assert len(kept) == 1000
    assert (np.diff(kept) >= 0).all()


def test_they_are_saved_and_change_the_fingerprint(calibration, tmp_path):
    assert len(calibration.differences) == 32 * 7  # each take, to each other speaker
    calibration.save(tmp_path / "a.calibration")
    read = Calibration.load(tmp_path / "a.calibration", model_id=calibration.model_id)
    assert np.array_equal(read.differences, calibration.differences)
    assert read.fingerprint == calibration.fingerprint
    without = replace(calibration, differences=np.zeros(0))
    assert without.fingerprint != calibration.fingerprint
    without.save(tmp_path / "b.calibration")  # as earlier versions wrote it
    old = Calibration.load(tmp_path / "b.calibration", model_id=calibration.model_id)
    assert len(old.differences) == 0
