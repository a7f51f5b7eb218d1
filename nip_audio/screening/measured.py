"""Hold what a screening knows about one file: facts, measurements, and its line in the journal."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from nip_audio.audio.condition import Condition

__all__ = [
    "CRASHED",
    "RETRY",
    "Facts",
    "FileFacts",
    "Heard",
    "ImageFacts",
    "ImageMeasurement",
    "Measured",
    "MeasuredFile",
    "Measurement",
    "SpeechEvidence",
    "TriggerEvidence",
]

Array = NDArray[np.float64]

RETRY = "again"
"""Stamp of a file that is tried again in the next run although it did not change."""

CRASHED = "crashed"
"""Code of the error of a file that crashes the process that reads it."""


@dataclass(frozen=True)
class Measurement:
    """Measurement of one recording, before any judgement.

    Attributes:
        embedding: (D,) embedding of unit length.
        evidence: What the detector judges, by its probe. ``NccrProbe``: (F + 1,) change rates of
            the layers, changes of the label's scores or of the embedding under noise, and, last,
            the number of samples; an input row of ``LogRates``. ``ResponseProbe``: (W F,) rows of
            W windows.
        spectrum: (2B,) mean and standard deviation over time of each band of the model input, after
            the overall level is removed; it characterises the kind of audio.
        windows: (2 W,) start and length of sound in seconds of each window; (0,) if the recording
            was measured as a whole.
        channels: (W,) what each window belongs to: 0 the mean of all channels, else the number of a
            channel, from 1; (0,) if all windows are of the mean.
        likeness: (1,) smallest cosine similarity between the voices of two channels; (0,) if fewer
            than two hold speech.
        codes: (frames,) fingerprint by which copies are found, as ``fingerprint_of`` returns it.
    """

    tag: ClassVar[str] = "audio"

    embedding: Array
    evidence: Array
    spectrum: Array
    windows: Array = field(default_factory=lambda: np.zeros(0))
    channels: Array = field(default_factory=lambda: np.zeros(0))
    likeness: Array = field(default_factory=lambda: np.zeros(0))
    codes: Array = field(default_factory=lambda: np.zeros(0))


@dataclass(frozen=True)
class ImageMeasurement:
    """Measurement of one image, before any judgement.

    Attributes:
        evidence: (F + 1,) change rates of the layers, changes of the label's scores under noise,
            and, last, the number of columns; an input row of ``LogRates``.
        named: Label that the model predicts.
    """

    tag: ClassVar[str] = "image"

    evidence: Array
    named: str

    @property
    def embedding(self) -> Array:
        """Embedding by which altered copies are found: none, (0,)."""
        return np.zeros(0)

    @property
    def codes(self) -> Array:
        """Fingerprint by which altered copies are found: none, (0,)."""
        return np.zeros(0)

    @property
    def windows(self) -> Array:
        """Windows: none, (0,); an image is measured as a whole."""
        return np.zeros(0)

    @property
    def channels(self) -> Array:
        """Channels that were measured by themselves: none, (0,)."""
        return np.zeros(0)


@dataclass(frozen=True)
class TriggerEvidence:
    """Evidence for a backdoor trigger: how destructive noise changes a file's neurons.

    Attributes:
        named: Label that the model predicts.
        second: Label with the second-highest score.
        lead: Score of the predicted label minus that of the second.
        change: ‖F(x') − F(x)‖ / ‖F(x)‖ at the first layer: the scalar NCCR (neuron coverage change
            rate).
        neurons: (N,) signed changes of the neurons under the noise.
        outputs: (M,) outputs of the neurons without noise, each layer scaled to unit length.
    """

    named: str
    second: str
    lead: float
    change: float
    neurons: Array
    outputs: Array


@dataclass(frozen=True)
class SpeechEvidence:
    """What the enrolment gate asks of the speech of a recording.

    Attributes:
        finder: Name and version of what found the speech.
        speech_s: Seconds of speech.
        snr_db: Estimated signal-to-noise ratio in dB; None without speech.
        level_dbfs: Root mean square of the speech in dB to full scale; None without speech.
        silence_s: Longest digital silence with sound before and after, in seconds.
        part_cosine: Smallest cosine between two parts of the speech, one after the other; None if
            there is too little of it for two parts.
        change_s: Where in the recording the second of these parts begins, in seconds; None as well.
    """

    finder: str
    speech_s: float
    snr_db: float | None
    level_dbfs: float | None
    silence_s: float
    part_cosine: float | None
    change_s: float | None


@dataclass(frozen=True)
class Heard:
    """What a recording holds besides silence, by its levels alone.

    Attributes:
        sound_s: Seconds of sound in the mean of all channels.
        speaks: Whether the mean or a channel may hold speech, and not hum or hiss alone.
        mixed: Number of channels that differ and were mixed; 0 if there is one signal.
        speechless: Numbers of the channels of these that hold hum or hiss alone.
        left_out: Number of channels of which only the mean with all others is known.
    """

    sound_s: float
    speaks: bool = True
    mixed: int = 0
    speechless: tuple[int, ...] = ()
    left_out: int = 0


@dataclass(frozen=True)
class FileFacts:
    """What is known about the file of a recording without the model.

    Attributes:
        duration_s: Duration in seconds.
        sample_rate_hz: Sample rate of the file.
        channels: Number of channels of the file.
        encoding: Encoding of the file, such as ``PCM_16``.
        sha256: SHA-256 of the file's bytes.
        content_sha256: SHA-256 of the decoded samples.
        clipped_share: Share of samples that were cut off at the highest level, in [0, 1].
        changes: What reading the file changed, such as its sample rate, in words.
        condition: Traces of recording and transmission, such as bandwidth and dropouts.
        heard: What the recording holds besides silence.
    """

    tag: ClassVar[str] = "audio"

    duration_s: float
    sample_rate_hz: int
    channels: int
    encoding: str
    sha256: str
    content_sha256: str
    clipped_share: float
    changes: tuple[str, ...]
    condition: Condition
    heard: Heard


@dataclass(frozen=True)
class ImageFacts:
    """What is known about the file of an image without the model.

    Attributes:
        height: Height of the file in pixels.
        width: Width of the file in pixels.
        scale: Size of the image divided by that of the model's input, for the direction in which
            this is smaller; below 1 the image was enlarged.
        stretch: Ratio of the scaling in the two directions, ≥ 1; 1 keeps the shape.
        encoding: Format of the file.
        sha256: SHA-256 of the file's bytes.
        content_sha256: SHA-256 of the pixels at the model's input size.
        changes: What reading the file changed, such as its size, in words.
    """

    tag: ClassVar[str] = "image"

    height: int
    width: int
    scale: float
    stretch: float
    encoding: str
    sha256: str
    content_sha256: str
    changes: tuple[str, ...]


Facts = FileFacts | ImageFacts
"""What is known about a file without the model."""

Measured = Measurement | ImageMeasurement
"""Measurement of a file; ``tag`` names the modality."""


@dataclass(frozen=True)
class MeasuredFile:
    """One file in the journal of a run: its measurement, or why it could not be measured.

    Attributes:
        id: Id of the file in its source.
        speaker: Speaker of the file, or folder of an image; None if it has none.
        stamp: Marks of the file by which a change is noticed, as ``stamp_of`` returns them.
        facts: What is known without the model; None if the file could not be read.
        measurement: Measurement of the model; None if the file could not be read.
        trigger: Evidence for a backdoor trigger; None if it was not measured.
        error: ``code``, ``found`` and ``remedy`` if the file could not be read, else None.
        speech: What the enrolment gate asks for; None if it was not measured.
    """

    id: str
    speaker: str | None
    stamp: str
    facts: Facts | None = None
    measurement: Measured | None = None
    trigger: TriggerEvidence | None = None
    error: dict[str, str] | None = None
    speech: SpeechEvidence | None = None
