"""What a record says about a recording, or about an image, besides what it says about any file."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import ClassVar, get_args, get_type_hints

__all__ = ["DETAILS", "Details", "ImageDetails", "RecordingDetails", "names_of"]

_START = ("id", "speaker", "verdict", "findings")
_DISTANCE = ("distance", "distance_threshold", "p_value", "q_value")


@dataclass(frozen=True)
class RecordingDetails:
    """Details of the record of a recording.

    Attributes:
        domain_distance: Distance of the file's spectrum from those of clean recordings, ≥ 0.
        domain_threshold: Distance above which a file is out of domain.
        consistency: Mean cosine similarity to the core of the speaker's files; None if the speaker
            has fewer than two.
        consistency_threshold: Similarity below which a file is inconsistent, which is the
            verification threshold at the equal error rate; None if no speaker of the calibration
            has two recordings.
        duration_s: Duration in seconds.
        sample_rate_hz: Sample rate of the file.
        channels: Number of channels of the file.
        bandwidth_hz: Highest frequency with content; above it there is only rounding noise.
        sound_s: Seconds of sound, without silence: what was judged.
        channel_likeness: Smallest cosine similarity between the voices of two channels that
            differ; None if there are none.
        window_s: Where the most suspicious window begins, in seconds.
        resembles: Condition that this window resembles most, such as ``white noise at 25 dB`` or
            an attack. This and the one before are None with a clean-only calibration.
        clipped_share: Share of the samples that were cut off at the highest level, in [0, 1].
        speech_s: Seconds of speech, without pauses. This and the following are None unless the
            enrolment gate was asked for.
        snr_db: Estimated signal-to-noise ratio in dB; None without speech.
        level_dbfs: Root mean square of the speech in dB to full scale; None without speech.
        silence_s: Longest digital silence with sound before and after, in seconds.
        part_cosine: Smallest cosine between two parts of the speech, one after the other; None if
            there is too little of it for two parts.
        unmet: Keys of gate.toml whose limits the recording does not keep.
    """

    tag: ClassVar[str] = "audio"
    shown: ClassVar[str] = "consistency"
    written: ClassVar[tuple[str, ...]] = (
        *(*_START, *_DISTANCE, "domain_distance", "domain_threshold"),
        *("consistency", "consistency_threshold", "duplicate_of", "duration_s", "sample_rate_hz"),
        *("channels", "encoding", "bandwidth_hz", "sound_s", "channel_likeness"),
        *("window_s", "resembles", "clipped_share", "speech_s", "snr_db", "level_dbfs"),
        *("silence_s", "part_cosine", "unmet", "changes"),
        *("sha256", "error"),
    )

    domain_distance: float | None = None
    domain_threshold: float | None = None
    consistency: float | None = None
    consistency_threshold: float | None = None
    duration_s: float | None = None
    sample_rate_hz: int | None = None
    channels: int | None = None
    bandwidth_hz: float | None = None
    sound_s: float | None = None
    channel_likeness: float | None = None
    window_s: float | None = None
    resembles: str | None = None
    clipped_share: float | None = None
    speech_s: float | None = None
    snr_db: float | None = None
    level_dbfs: float | None = None
    silence_s: float | None = None
    part_cosine: float | None = None
    unmet: tuple[str, ...] | None = None


@dataclass(frozen=True)
class ImageDetails:
    """Details of the record of an image.

    Attributes:
        named: Label that the model predicts; None if the image could not be judged.
        height: Height of the file in pixels.
        width: Width of the file in pixels.
    """

    tag: ClassVar[str] = "image"
    shown: ClassVar[str] = "named"
    written: ClassVar[tuple[str, ...]] = (
        *(*_START, *_DISTANCE, "duplicate_of", "encoding", "changes", "sha256", "error"),
        *("named", "height", "width"),
    )

    named: str | None = None
    height: int | None = None
    width: int | None = None


Details = RecordingDetails | ImageDetails
"""``tag`` names the modality, ``written`` the fields of a line in their order, and ``shown`` the
detail that a short table shows."""

DETAILS: tuple[type[Details], ...] = (RecordingDetails, ImageDetails)


def names_of(kind: type[Details], type_: type | None = None) -> tuple[str, ...]:
    """Return the names of the details, or of those of one type, such as ``float``."""
    hints = get_type_hints(kind)
    names = (field.name for field in fields(kind))
    return tuple(n for n in names if type_ is None or type_ in get_args(hints[n]))
