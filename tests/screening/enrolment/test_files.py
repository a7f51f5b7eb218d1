"""A recording against each limit of the gate: just kept, and just missed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nip_audio.audio.condition import Condition
from nip_audio.screening.enrolment.files import add_failures, failures_of
from nip_audio.screening.enrolment.limits import GateLimits
from nip_audio.screening.measured import FileFacts, Heard, SpeechEvidence
from nip_audio.screening.records import Finding, ScreenRecord

LIMITS = GateLimits.of(None).recording
SPEECH = SpeechEvidence("silero-vad 6", 5.0, 30.0, -25.0, 0.0, 0.8, 2.5)
FACTS = FileFacts(
    duration_s=6.0,
    sample_rate_hz=16000,
    channels=1,
    encoding="WAV/PCM_16",
    sha256="0" * 64,
    content_sha256="0" * 64,
    clipped_share=0.0,
    changes=(),
    condition=Condition(8000.0, 0, 0.0),
    heard=Heard(5.5),
)
THRESHOLD = 0.5


def unmet(*, clipped_share=0.0, bandwidth_hz=8000.0, rate_hz=16000, **changes):
    condition = Condition(bandwidth_hz, 0, 0.0)
    facts = replace(FACTS, clipped_share=clipped_share, condition=condition, sample_rate_hz=rate_hz)
    failures = failures_of(replace(SPEECH, **changes), facts, LIMITS, THRESHOLD)
    return [failure.limit for failure in failures]


def test_a_good_recording_fails_nothing():
    assert unmet() == []


@pytest.mark.parametrize(
    ("limit", "name", "kept", "missed"),
    [
        ("least_speech_s", "speech_s", LIMITS.least_speech_s, LIMITS.least_speech_s - 1e-6),
        ("least_snr_db", "snr_db", LIMITS.least_snr_db, LIMITS.least_snr_db - 1e-6),
        ("least_level_dbfs", "level_dbfs", LIMITS.least_level_dbfs, LIMITS.least_level_dbfs - 1e-6),
        ("most_silence_s", "silence_s", LIMITS.most_silence_s, LIMITS.most_silence_s + 1e-6),
        ("most_clipped_share", "clipped_share", LIMITS.most_clipped_share, 0.0051),
        ("least_bandwidth_hz", "bandwidth_hz", LIMITS.least_bandwidth_hz, 4799.0),
        (
            "least_part_cosine",
            "part_cosine",
            THRESHOLD - LIMITS.voice_margin,
            THRESHOLD - LIMITS.voice_margin - 1e-6,
        ),
    ],
)
def test_each_limit_is_kept_at_its_value_and_missed_beyond_it(limit, name, kept, missed):
    assert unmet(**{name: kept}) == []
    assert unmet(**{name: missed}) == [limit]


@pytest.mark.parametrize("name", ["snr_db", "level_dbfs", "part_cosine"])
def test_what_could_not_be_measured_fails_nothing(name):
    assert unmet(**{name: None}) == []


def test_voices_are_not_compared_without_a_threshold():
    assert failures_of(replace(SPEECH, part_cosine=-1.0), FACTS, LIMITS, None) == []
    given = replace(LIMITS, least_part_cosine=0.4)
    assert failures_of(replace(SPEECH, part_cosine=0.4), FACTS, given, None) == []
    assert failures_of(replace(SPEECH, part_cosine=0.39), FACTS, given, None) != []


def test_more_speech_is_asked_for_more_likeness():
    def least(speech_s, **given):
        return replace(LIMITS, **given).part_cosine(THRESHOLD, speech_s=speech_s)

    assert least(5.0) == pytest.approx(THRESHOLD - LIMITS.voice_margin)
    assert least(10.0) == pytest.approx(least(5.0) + LIMITS.voice_gain_per_doubling)
    assert least(2.5) == pytest.approx(least(5.0) - LIMITS.voice_gain_per_doubling)
    assert least(600.0) == THRESHOLD  # never above it: single windows stay short
    assert least(600.0, least_part_cosine=0.4) == 0.4
    cosine = THRESHOLD - LIMITS.voice_margin + 0.01
    assert unmet(speech_s=5.0, part_cosine=cosine) == []
    assert unmet(speech_s=10.0, part_cosine=cosine) == ["least_part_cosine"]


def test_a_quiet_recording_is_not_called_narrow_as_well():
    assert unmet(level_dbfs=-60.0, bandwidth_hz=1000.0) == ["least_level_dbfs"]


@pytest.mark.parametrize(
    ("rate_hz", "words"),
    [
        (16000, "although its sample rate is 16000 Hz"),
        (8000, "because its sample rate is 8000 Hz"),
    ],
)
def test_a_rate_that_lies_is_told_from_a_low_one(rate_hz, words):
    facts = replace(FACTS, sample_rate_hz=rate_hz, condition=Condition(4000.0, 0, 0.0))
    (failure,) = failures_of(SPEECH, facts, LIMITS, THRESHOLD)
    assert words in failure.why


def test_a_reason_has_what_was_found_what_is_needed_and_what_to_do():
    (failure,) = failures_of(replace(SPEECH, speech_s=1.1), FACTS, LIMITS, THRESHOLD)
    assert failure.why == "1.1 s of speech in 6.0 s, at least 2 s are needed"
    assert failure.remedy == "record a longer passage"


def record_of(*findings: Finding) -> ScreenRecord:
    return ScreenRecord("a.wav", "alice", "clean").with_findings(*findings)


def test_a_failure_is_a_note_and_a_verdict_if_strict():
    failures = failures_of(replace(SPEECH, speech_s=1.1), FACTS, LIMITS, THRESHOLD)
    note = add_failures(record_of(), SPEECH, failures, told=(), strict=False)
    assert (note.verdict, note.flagged, note.findings[0].risk) == ("clean", False, "advice")
    strict = add_failures(record_of(), SPEECH, failures, told=(), strict=True)
    assert (strict.verdict, strict.flagged, strict.findings[0].risk) == ("unfit", True, "unfit")
    assert strict.details.unmet == ("least_speech_s",)
    assert ScreenRecord.from_line(strict.to_line()) == strict


def test_what_a_finding_tells_already_is_not_told_twice():
    failures = failures_of(SPEECH, replace(FACTS, clipped_share=0.02), LIMITS, THRESHOLD)
    clipped = Finding.of("damaged", "it is clipped")
    told = add_failures(
        record_of(clipped), SPEECH, failures, told={"most_clipped_share"}, strict=True
    )
    assert told.findings == (clipped,)
    assert (told.verdict, told.details.unmet) == ("damaged", ("most_clipped_share",))
