"""Compare what was measured of a recording with the limits of the enrolment gate."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from nip_audio.core.finite import require_finite
from nip_audio.screening.details import RecordingDetails
from nip_audio.screening.enrolment.limits import RecordingLimits
from nip_audio.screening.measured import FileFacts, SpeechEvidence
from nip_audio.screening.records import Finding, Risk, ScreenRecord

__all__ = ["Failure", "add_failures", "failures_of"]


@dataclass(frozen=True)
class Failure:
    """One limit that a recording does not keep.

    Attributes:
        limit: Key of the limit in gate.toml, such as ``least_speech_s``.
        why: What was found and what is expected, in words.
        remedy: What to do about it.
    """

    limit: str
    why: str
    remedy: str


def failures_of(
    speech: SpeechEvidence,
    facts: FileFacts,
    limits: RecordingLimits,
    verification_threshold: float | None,
) -> list[Failure]:
    """Return the limits that a recording does not keep, the most telling first.

    A value that could not be measured fails no limit: less than 2 s of speech are not divided into
    two parts, for example. What says little after an earlier failure is left out: of a recording
    without speech, for example, its level.

    Args:
        speech: What was measured of its speech.
        facts: What is known about its file.
        limits: Limits to keep.
        verification_threshold: Cosine from which two recordings count as one voice; None if the
            calibration has none.
    """
    require_finite(speech=speech.speech_s, snr=speech.snr_db, level=speech.level_dbfs)
    require_finite(silence=speech.silence_s, cosine_of_the_parts=speech.part_cosine)
    return [
        *_of_the_speech(speech, facts, limits, verification_threshold),
        *_of_the_file(speech, facts, limits),
    ]


def _of_the_speech(
    speech: SpeechEvidence,
    facts: FileFacts,
    limits: RecordingLimits,
    verification_threshold: float | None,
) -> Iterator[Failure]:
    if speech.speech_s < limits.least_speech_s:
        yield Failure(
            "least_speech_s",
            f"{speech.speech_s:.1f} s of speech in {facts.duration_s:.1f} s, at least "
            f"{limits.least_speech_s:g} s are needed",
            "record a longer passage",
        )
    if speech.level_dbfs is not None and speech.level_dbfs < limits.least_level_dbfs:
        yield Failure(
            "least_level_dbfs",
            f"its speech is at {speech.level_dbfs:.0f} dBFS (RMS), at least "
            f"{limits.least_level_dbfs:g} dBFS are needed",
            "record closer to the microphone, or raise its level",
        )
    if speech.snr_db is not None and speech.snr_db < limits.least_snr_db:
        yield Failure(
            "least_snr_db",
            f"its speech is {speech.snr_db:.0f} dB above the noise, at least "
            f"{limits.least_snr_db:g} dB are needed",
            "record in a quieter room, or closer to the microphone",
        )
    cosine = speech.part_cosine
    if cosine is None:
        return
    least = limits.part_cosine(verification_threshold, speech_s=speech.speech_s)
    if least is not None and cosine < least:
        yield Failure(
            "least_part_cosine",
            f"its voice changes at {speech.change_s:.1f} s (cosine similarity {cosine:.2f}, one "
            f"voice has at least {least:.2f}), so two people may speak in it",
            "listen to it; record one person alone, or cut the other one out",
        )


def _of_the_file(
    speech: SpeechEvidence, facts: FileFacts, limits: RecordingLimits
) -> Iterator[Failure]:
    if facts.clipped_share > limits.most_clipped_share:
        yield Failure(
            "most_clipped_share",
            f"{facts.clipped_share:.1%} of its samples are cut off at the highest level, at most "
            f"{limits.most_clipped_share:.1%} may be",
            "record it again at a lower level",
        )
    quiet = speech.level_dbfs is not None and speech.level_dbfs < limits.least_level_dbfs
    reach_hz = min(facts.condition.bandwidth_hz, facts.sample_rate_hz / 2)
    if not quiet and reach_hz < limits.least_bandwidth_hz:
        lies = reach_hz < facts.sample_rate_hz / 2 * 0.6
        how = (
            f", although its sample rate is {facts.sample_rate_hz} Hz: it was sampled at less "
            "before, or went through a telephone"
            if lies
            else f", because its sample rate is {facts.sample_rate_hz} Hz"
        )
        yield Failure(
            "least_bandwidth_hz",
            f"it holds nothing above {reach_hz:.0f} Hz{how}; at least "
            f"{limits.least_bandwidth_hz:g} Hz are needed",
            "record it again with a higher sample rate, and not over a telephone",
        )
    if speech.silence_s > limits.most_silence_s:
        yield Failure(
            "most_silence_s",
            f"it holds {speech.silence_s:.2f} s of digital silence, which no microphone records; "
            f"at most {limits.most_silence_s:g} s may be",
            "switch off noise suppression and gates, get the original file, or record it again",
        )


def add_failures(
    record: ScreenRecord,
    speech: SpeechEvidence,
    failures: Sequence[Failure],
    *,
    told: Container[str],
    strict: bool,
) -> ScreenRecord:
    """Add to a record what was measured of its speech, and the limits that it does not keep.

    Args:
        record: Record of the recording, with what else was found in it.
        speech: What was measured of its speech.
        failures: Limits that it does not keep.
        told: Limits about which the findings say the same already; it is not said twice.
        strict: Whether a failure is a verdict, or a note only.
    """
    measured: dict[str, Any] = {
        "speech_s": speech.speech_s,
        "snr_db": speech.snr_db,
        "level_dbfs": speech.level_dbfs,
        "silence_s": speech.silence_s,
        "part_cosine": speech.part_cosine,
        "unmet": tuple(failure.limit for failure in failures),
    }
    details = RecordingDetails(**{**vars(record.details), **measured})
    risk: Risk = "unfit" if strict else "advice"
    new = (Finding(risk, f.why, f.remedy) for f in failures if f.limit not in told)
    return replace(record, details=details).with_findings(*new)
