"""Cohesion, another speaker's voice, and what to do with a speaker."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from nip_audio.detectors.consistency import consistency_scores
from nip_audio.models import same_voice
from nip_audio.models.log_ratios import LogRatios
from nip_audio.models.same_voice import fit_same_voice
from nip_audio.screening.calibration import Calibration
from nip_audio.screening.details import RecordingDetails
from nip_audio.screening.enrolment.limits import GateLimits
from nip_audio.screening.enrolment.speakers import (
    Nearest,
    Voices,
    cohesion,
    decide,
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


def drawn_voices(speakers: int, recordings: int, *, spread: float = 0.5, seed: int = 0):
    """Draw speakers with voices of their own in 32 dimensions; return owners and embeddings."""
    centres = np.random.default_rng(seed).standard_normal((speakers, 32))
    rows = [around(one, recordings, spread, seed + k) for k, one in enumerate(centres, 1)]
    return np.repeat([f"s{k:02}" for k in range(speakers)], recordings), np.concatenate(rows)


def test_probabilities_are_calibrated_for_even_odds():
    ratios = fit_same_voice(*drawn_voices(30, 6, spread=1.5))
    owners, rows = drawn_voices(60, 6, spread=1.5, seed=100)  # other speakers
    voices = rows.reshape(60, 2, 3, -1).mean(axis=2)
    cosines = np.einsum("sd,td->st", voices[:, 0], voices[:, 1])
    same = np.eye(60, dtype=bool)
    told = np.array([ratios.probability(c, prior=0.5) for c in cosines.ravel()]).reshape(60, 60)
    # as many as the probabilities promise: both kinds weigh a half
    promised = (told[same].mean() + told[~same].mean()) / 2
    assert promised == pytest.approx(0.5, abs=0.03)
    assert told[same].mean() > 0.8 > 0.2 > told[~same].mean()
    assert len(owners) == 360


@pytest.mark.parametrize(
    ("speakers", "recordings", "known"),
    [(10, 2, True), (9, 2, False), (9, 60, False), (20, 1, False)],
)
def test_few_voices_are_not_evaluated(speakers, recordings, known):
    assert (fit_same_voice(*drawn_voices(speakers, recordings)) is not None) == known


def test_voices_that_are_no_more_alike_are_not_evaluated():
    owners, rows = drawn_voices(20, 6)
    turned = [f"s{k % 20:02}" for k in range(len(owners))]  # everyone has all voices
    assert fit_same_voice(turned, rows) is None


def test_many_recordings_are_fitted_in_bounded_memory(monkeypatch):
    monkeypatch.setattr(same_voice, "_MOST_VOICES", 40)
    few = fit_same_voice(*drawn_voices(10, 30))
    monkeypatch.undo()
    every = fit_same_voice(*drawn_voices(10, 30))
    assert few.slope > 0
    assert few != every


def test_the_nearest_speaker_is_found_with_a_probability():
    voices = Voices()
    for name, centre, seed in (("alice", 0, 1), ("bob", 1, 2), ("alicia", 0, 3)):
        for row in around(np.eye(16)[centre], 4, 0.1, seed):
            voices.add(name, row)
    found = nearest_voices(voices, LogRatios(slope=20.0, offset=-10.0))
    assert (found["alice"].speaker, found["alicia"].speaker) == ("alicia", "alice")
    assert found["alice"].same > 0.95 > 0.5 > found["bob"].same
    unknown = nearest_voices(voices, None)
    assert unknown["alice"].same is None
    assert unknown["alice"].cosine == found["alice"].cosine


def test_a_speaker_alone_has_nobody_near():
    voices = Voices()
    voices.add("alice", ALICE[0])
    assert nearest_voices(voices, LogRatios(1.0, 0.0)) == {}


def test_the_core_can_be_taken_from_some_recordings():
    bad = around(np.eye(16)[5], 4, 0.1)  # alike each other because all are bad
    rows = np.concatenate([ALICE[:2], bad])
    assert consistency_scores(rows)[:2].max() < THRESHOLD < consistency_scores(rows)[2:].min()
    among = consistency_scores(rows, among=[0, 1])
    assert among[:2].min() > THRESHOLD > among[2:].max()


def test_a_calibration_knows_when_two_speakers_are_one_voice(calibration, tmp_path):
    assert calibration.same_voice is None  # eight speakers of four takes are too few
    told = replace(calibration, same_voice=LogRatios(20.0, -10.0))
    assert told.fingerprint != calibration.fingerprint
    for name, one in (("a", told), ("b", calibration)):  # b as earlier versions wrote it
        one.save(tmp_path / name)
        read = Calibration.load(tmp_path / name, model_id=one.model_id)
        assert (read.same_voice, read.fingerprint) == (one.same_voice, one.fingerprint)
    owners, rows = drawn_voices(20, 2)
    assert voices_of(list(owners), rows)["same_voice"] == fit_same_voice(owners, rows)
