"""What a screening knows of one file: facts, measurements, and both as the journal keeps them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nip_audio.audio.condition import Condition

__all__ = [
    "AGAIN",
    "FileFacts",
    "MeasuredFile",
    "Measurement",
    "PictureFacts",
    "PictureMeasurement",
    "TriggerEvidence",
]

Array = NDArray[np.float64]

AGAIN = "again"
"""Stamp of a file that may be readable next time though nothing about it has changed."""


@dataclass(frozen=True)
class Measurement:
    """What is known of one recording, without any judgement.

    Attributes:
        embedding: (D,) of unit length.
        evidence: (F + 1,) change rates, what the noise does to the name or to the voice, and, last,
            the number of samples: a row for ``LogRates``, as ``NccrMeasure``'s are.
        spectrum: (2B,) mean and standard deviation over time of each band of the model input, after
            the overall level is removed: what kind of audio it is.
    """

    embedding: Array
    evidence: Array
    spectrum: Array


@dataclass(frozen=True)
class PictureMeasurement:
    """What is known of one picture, without any judgement.

    Attributes:
        evidence: (F + 1,) change rates, what the noise does to the name, and, last, the number of
            columns: a row for ``LogRates``, as ``NccrMeasure``'s are.
        named: What the model names it.
    """

    evidence: Array
    named: str


@dataclass(frozen=True)
class TriggerEvidence:
    """What is looked at for a trigger: what destroying noise does to a file, and what it is like.

    Attributes:
        named: Whom the model names.
        second: Whom it would name next.
        lead: By how much the score of the first exceeds that of the second.
        change: ‖F(x') − F(x)‖ / ‖F(x)‖ at the first layer: the scalar NCCR.
        neurons: (N,) signed changes of neurons under the noise.
        outputs: (M,) of neurons without it, each layer of unit length.
    """

    named: str
    second: str
    lead: float
    change: float
    neurons: Array
    outputs: Array


@dataclass(frozen=True)
class FileFacts:
    """What is known of one recording's file, without the model.

    Attributes:
        duration_s: Seconds.
        sample_rate_hz: Of the file.
        channels: Of the file.
        encoding: Of the file.
        sha256: Of the file's bytes.
        content_sha256: Of the decoded samples.
        clipped_share: Share of samples at full scale.
        changes: What reading it changed.
        condition: Traces of recording and transmission.
    """

    duration_s: float
    sample_rate_hz: int
    channels: int
    encoding: str
    sha256: str
    content_sha256: str
    clipped_share: float
    changes: tuple[str, ...]
    condition: Condition


@dataclass(frozen=True)
class PictureFacts:
    """What is known of one picture's file, without the model.

    Attributes:
        height: Rows of the file.
        width: Columns of the file.
        scale: How many times as large as the model's input it is, in the direction in which it is
            smaller: below 1 it was enlarged.
        stretch: How much more it was scaled in one direction than in the other, ≥ 1.
        encoding: Of the file.
        sha256: Of the file's bytes.
        content_sha256: Of the pixels as the model takes them.
        changes: What reading it changed.
    """

    height: int
    width: int
    scale: float
    stretch: float
    encoding: str
    sha256: str
    content_sha256: str
    changes: tuple[str, ...]


@dataclass(frozen=True)
class MeasuredFile:
    """One file as the journal of a run keeps it: measured, or why it could not be.

    Attributes:
        id: Of the file.
        speaker: Whose recording it is said to be, or what a picture is said to show.
        stamp: Size and time of change: whoever finds another one measures again.
        facts: None if it could not be read.
        measurement: Likewise.
        trigger: What a backdoor is looked for by; None where none is.
        error: ``code``, ``found`` and ``remedy`` if it could not be read.
    """

    id: str
    speaker: str | None
    stamp: str
    facts: FileFacts | PictureFacts | None = None
    measurement: Measurement | PictureMeasurement | None = None
    trigger: TriggerEvidence | None = None
    error: dict[str, str] | None = None
