"""Screen recordings: measure them, judge them and say in words what was found."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from nip_audio.audio import MODALITY
from nip_audio.audio.adapter import WaveformAdapter
from nip_audio.audio.condition import condition_of
from nip_audio.audio.fingerprints import fingerprint_of, in_common_band
from nip_audio.audio.io import Audio
from nip_audio.audio.manifest import Recording
from nip_audio.audio.windows import LEAST_SOUND_S
from nip_audio.core.finite import require_finite
from nip_audio.core.metrics import all_pairs_eer
from nip_audio.core.modality import Modality
from nip_audio.detectors.consistency import consistency_scores
from nip_audio.detectors.fitted import FittedDistance
from nip_audio.errors import AudioError, CalibrationError, FileError
from nip_audio.models.pretrained import PretrainedModel
from nip_audio.models.same_voice import fit_same_voice
from nip_audio.screening.calibration import Calibration
from nip_audio.screening.details import RecordingDetails
from nip_audio.screening.enrolment.speakers import is_mostly_bad, unmet_of
from nip_audio.screening.kind import Kind, Words
from nip_audio.screening.measure import measure_evidence, noise_generator
from nip_audio.screening.measured import FileFacts, Heard, Measurement, SpeechEvidence
from nip_audio.screening.probes import Place, Probe, ResponseProbe
from nip_audio.screening.records import RISKS, Finding, ScreenRecord
from nip_audio.screening.response import ResponseDetector
from nip_audio.screening.sounds import (
    likeness_of,
    measure_sound,
    measure_speech,
    signals_of,
    spectrum_of,
    voice_in,
)

if TYPE_CHECKING:
    from nip_audio.detectors.clean import CleanDistance

__all__ = [
    "LEAST_NOISE_RMS",
    "Recordings",
    "fit_domain",
    "is_narrow",
    "told_by_findings",
    "voices_of",
]

DOMAIN_MARGIN = 1.5
"""A recording is out of domain if its spectrum is farther from clean ones than this multiple of the
farthest calibration recording."""

LEAST_BANDWIDTH = 0.6
"""Smallest bandwidth, as a share of half the model's sample rate; audio below it went through a
telephone or another narrow channel. Clean LibriSpeech reaches 100 %, 84 % even if it is 10 dB
quieter, and 72 % as MP3 of low bit rate; resampled to 8 kHz and back it reaches 53 %."""

CLIPPED_SHARE, DROPPED_SHARE, DROPOUTS = 0.005, 0.01, 2

LEAST_NOISE_RMS = 1e-4
"""Smallest RMS of the noise that a calibration may tolerate."""

_CHOOSE_CHANNEL = (
    "choose the channel that is used (--channel, channel, or a column channel in a manifest)"
)

_FILES_A_SPEAKER = 3
_WORDS = Words(
    clean="audio",
    raw="waveform",
    input="spectrogram",
    same="the same recording as",
    same_by="correlation of the samples",
    many="many voices",
    group="speaker",
    groups="speakers",
    warning="this audio is unlike the audio that the detector was calibrated on, so single "
    "verdicts mean little: {outside} of {judged} files are out of domain, and {unusual} have a "
    "p-value of at most 5 %, as one in twenty clean recordings has. Either most files are "
    "attacked, or they are another kind of audio (microphone, codec, language, synthetic voices). "
    "Calibrate on clean audio of your own: nip-audio calibrate CLEAN_DIR --out my.calibration, "
    "then screen with --calibration my.calibration. Use recordings whose origin you know, none of "
    "these: an attacker may want to be learned as clean",
    remedies=RISKS,
)


@dataclass(frozen=True)
class Recordings(Kind):
    """How a screening measures and judges recordings.

    Altered copies are found by a fingerprint of their sound and the correlation of their samples.
    """

    modality: ClassVar[Modality] = MODALITY
    words: ClassVar[Words] = _WORDS
    details: ClassVar[type[RecordingDetails]] = RecordingDetails
    finds_altered_copies: ClassVar[bool] = True
    learns_attacks: ClassVar[bool] = True
    has_speech: ClassVar[bool] = True

    reader: WaveformAdapter

    @classmethod
    def lack(cls, item: Audio) -> dict[str, str] | None:
        """Return that a clean recording holds too little sound, or hum or hiss alone."""
        if item.sound_s < LEAST_SOUND_S:
            return {
                "code": "too_little_sound",
                "found": f"it holds {item.sound_s:.1f} s of sound, at least {LEAST_SOUND_S:g} s "
                "are needed",
                "remedy": "add a longer recording",
            }
        if not item.mixture.speaks:
            return {
                "code": "no_speech",
                "found": "its level hardly changes, as that of hiss, hum or a tone",
                "remedy": "add recordings of speech",
            }
        return None

    def facts(self, item: Audio) -> FileFacts:
        """Return what is known about a recording without the model."""
        return FileFacts(
            duration_s=item.duration_s,
            sample_rate_hz=item.source_rate_hz,
            channels=item.source_channels,
            encoding=item.encoding,
            sha256=item.sha256,
            content_sha256=item.content_sha256,
            clipped_share=item.clipped_share,
            changes=item.changes,
            condition=condition_of(item.samples, item.sample_rate_hz),
            heard=Heard(
                item.sound_s,
                item.mixture.speaks or any(one.speaks for one in item.channels),
                len(item.channels),
                tuple(one.number for one in item.channels if not one.speaks),
                item.channels_left_out,
            ),
        )

    @torch.no_grad()
    def measure(
        self, pretrained: PretrainedModel, item: Audio, probe: Probe, *, seed: int
    ) -> Measurement:
        """Measure one recording; equal content and seed give equal results.

        A ``ResponseProbe`` measures channels that differ each by itself, too, because a system may
        read one of them: their mean holds half of an attack in one of two. Everything else is
        about the mean. What holds hum or hiss alone is left out, unless there is nothing else.
        """
        model = pretrained.model if probe.names else pretrained.model.without_head()
        voice = item.mixture.voice
        heard = item if len(voice) == len(item.samples) else replace(item, samples=voice)
        speaking = [one for one in item.channels if one.speaks]
        likeness = likeness_of(model, speaking)
        codes = fingerprint_of(item.samples, item.sample_rate_hz).astype(np.float64)
        if isinstance(probe, ResponseProbe):
            generator = noise_generator(seed, item.noise_key)
            signals = signals_of(item, speaking)
            sound = measure_sound(model, probe, signals, generator=generator)
            return Measurement(
                embedding=voice_in(model, heard.samples),
                evidence=sound.rows.flatten(),
                spectrum=sound.spectrum,
                windows=sound.windows,
                channels=sound.channels,
                likeness=likeness,
                codes=codes,
            )
        result, evidence = measure_evidence(model, heard, probe.config, seed)
        embedding = torch.nn.functional.normalize(result.embedding, dim=0)
        return Measurement(
            embedding=embedding.cpu().double().numpy(),
            evidence=evidence,
            spectrum=spectrum_of(model, result.model_input),
            likeness=likeness,
            codes=codes,
        )

    @torch.no_grad()
    def measure_speech(self, pretrained: PretrainedModel, item: Audio) -> SpeechEvidence:
        """Measure what the enrolment gate asks for, of the mean of all channels.

        Raises:
            MissingDependencyError: If silero-vad is not installed.
        """
        return measure_speech(pretrained.model, item.mixture)

    @classmethod
    def new_detector(cls) -> CleanDistance:
        """Return a detector that is not fitted yet."""
        from nip_audio.detectors.clean import CleanDistance  # needs scikit-learn

        return CleanDistance()

    @classmethod
    def names(cls, pretrained: PretrainedModel, asked: bool | None) -> bool:
        """Return whether the evidence is about the predicted label or about the embedding.

        By default it is about the label if the model scores its speakers by logits.

        Raises:
            CalibrationError: If the label is asked for and the model predicts none.
        """
        model = pretrained.model
        if asked is None:
            return model.head is not None and model.output_kind == "logits"
        if asked and model.head is None:
            raise CalibrationError(
                f"model {pretrained.card.name} names no speakers, expected a model with a "
                "classifier; calibrate on voices instead, with names=False"
            )
        return asked

    @classmethod
    def owner(cls, file: Recording, item: Audio) -> str:  # noqa: ARG003
        """Return the speaker; a recording without one is a group of its own."""
        return file.speaker or file.id

    def unfit(self, file: Recording, facts: FileFacts) -> FileError | None:
        """Return that a recording is narrow: without attacks no such audio can be judged."""
        rate, reach = self.reader.settings.sample_rate_hz, _reach_hz(facts)
        if not is_narrow(reach, rate) and facts.sample_rate_hz >= rate:
            return None
        return AudioError(
            file.path,
            code="narrow",
            found=f"it holds nothing above {reach / 1000:g} kHz, as over a telephone, and a "
            "clean-only calibration judges no such audio",
            remedy="calibrate with attacks, which learns thresholds for telephones as well, or "
            f"record it at {rate} Hz or more",
        )

    def noisy_copy(self, item: Audio, largest_rms: float, seed: int) -> Audio:
        """Return a copy with white noise, whose level and samples depend on seed and content."""
        generator = noise_generator(seed, f"tolerated noise:{item.sha256}")
        share = float(torch.rand(1, generator=generator))
        rms = LEAST_NOISE_RMS * (largest_rms / LEAST_NOISE_RMS) ** share
        noise = rms * torch.randn(item.samples.shape, generator=generator)
        return replace(
            item,
            samples=(item.samples + noise).clamp(-1.0, 1.0),
            channels=(),
            sha256=hashlib.sha256(f"{item.sha256}:{rms}".encode()).hexdigest(),
        )

    def reference(
        self,
        owners: Sequence[str],
        facts: Sequence[FileFacts],  # noqa: ARG002
        measured: Sequence[Measurement],
        *,
        folds: int,
    ) -> Mapping[str, Any]:
        """Return what is known of clean spectra and of the voices of the speakers."""
        domain, distances = fit_domain([m.spectrum for m in measured], owners, folds=folds)
        return {
            "sample_rate_hz": self.reader.settings.sample_rate_hz,
            "domain": domain,
            "domain_distances": distances,
            **voices_of(owners, np.stack([m.embedding for m in measured])),
        }

    @classmethod
    def calibration_note(cls, calibration: Calibration) -> str | None:
        """Return that voices cannot be compared, if no speaker has two recordings."""
        if calibration.verification_threshold is not None:
            return None
        return (
            "no speaker has two recordings, so there is no threshold for verify and no check for "
            "inconsistent files; use one sub-folder per speaker, with two recordings or more"
        )

    @classmethod
    def details_of(
        cls, facts: FileFacts, measured: Measurement, calibration: Calibration
    ) -> RecordingDetails:
        """Return the details of a recording's record."""
        domain, distances = _domain(calibration, narrow=_narrow(facts, calibration))
        details = RecordingDetails(
            domain_distance=float(domain.distance([measured.spectrum])[0]),
            domain_threshold=float(distances[-1]) * DOMAIN_MARGIN,
            duration_s=facts.duration_s,
            sample_rate_hz=facts.sample_rate_hz,
            channels=facts.channels,
            bandwidth_hz=facts.condition.bandwidth_hz,
            sound_s=facts.heard.sound_s,
            channel_likeness=float(measured.likeness[0]) if len(measured.likeness) else None,
            clipped_share=facts.clipped_share,
        )
        detector = calibration.detector
        if not isinstance(detector, ResponseDetector):
            return details
        worst = detector.worst(measured)
        return replace(
            details,
            window_s=float(measured.windows[2 * worst]),
            resembles=detector.resembles(detector.rows(measured)[worst]),
        )

    @classmethod
    def place(cls, facts: FileFacts, measured: Measurement, calibration: Calibration) -> Place:
        """Return whether a recording is narrow, and how many windows it has."""
        return Place(_narrow(facts, calibration), max(1, len(measured.windows) // 2))

    @classmethod
    def outside(
        cls, details: RecordingDetails, facts: FileFacts, calibration: Calibration
    ) -> list[Finding]:
        """Return whether spectrum or bandwidth are unlike those of the calibration."""
        found = _unheard(facts, calibration)
        distance, limit = details.domain_distance or 0.0, details.domain_threshold or 0.0
        require_finite(distance_of_the_spectrum=distance, its_limit=limit)
        if distance > limit:
            why = (
                "its spectrum is unlike that of the audio that the detector was calibrated on "
                f"(distance {distance:.1f}, limit {limit:.1f}), so the detector's result means "
                "little for this file"
            )
            found.append(Finding.of("out_of_domain", why))
        if facts.heard.sound_s < LEAST_SOUND_S:
            why = (
                f"it holds {facts.heard.sound_s:.1f} s of sound in {facts.duration_s:.1f} s, and "
                f"at least {LEAST_SOUND_S:g} s are needed to judge it"
            )
            found.append(Finding("out_of_domain", why, "record a longer passage"))
        rate = calibration.sample_rate_hz or 0
        if "least_bandwidth_hz" in told_by_findings(facts, calibration):
            reach = _reach_hz(facts)
            how = (
                f"it is sampled at {facts.sample_rate_hz} Hz and the model expects {rate} Hz"
                if facts.sample_rate_hz < rate
                else f"it is sampled at {facts.sample_rate_hz} Hz, but went through a narrower "
                "channel such as a telephone"
            )
            why = (
                f"{how}, so it holds nothing above {reach / 1000:g} kHz; neither the detector nor "
                "the voice comparison is made for such audio"
            )
            remedy = f"record it again at {rate} Hz or more, and not over a telephone"
            found.append(Finding("out_of_domain", why, remedy))
        return found

    @classmethod
    def compared(cls, item: Audio) -> NDArray[np.floating]:
        """Return the samples in the band that a telephone leaves."""
        return in_common_band(item.samples.numpy(), item.sample_rate_hz)

    @classmethod
    def hears(cls, facts: FileFacts) -> bool:
        """Return whether a recording may hold speech, and not hum or hiss alone."""
        return facts.heard.speaks

    @classmethod
    def damage(
        cls, details: RecordingDetails, facts: FileFacts, calibration: Calibration
    ) -> list[Finding]:
        """Return whether a recording is clipped or interrupted, or holds two voices."""
        found = []
        told = told_by_findings(facts, calibration)
        likeness, threshold = details.channel_likeness, calibration.verification_threshold
        require_finite(likeness_of_the_channels=likeness, verification_threshold=threshold)
        if likeness is not None and threshold is not None and likeness < threshold:
            why = (
                "its channels do not sound like one voice (cosine similarity "
                f"{likeness:.2f}, expected at least {threshold:.2f}), so their mean is nobody's"
            )
            found.append(Finding("inconsistent", why, _CHOOSE_CHANNEL))
        if "most_clipped_share" in told:
            why = (
                f"{facts.clipped_share:.1%} of its samples are cut off at the highest level, so "
                "it was recorded too loud and is clipped"
            )
            found.append(Finding.of("damaged", why))
        condition = facts.condition
        if "most_silence_s" in told:
            times = "once" if condition.dropouts == 1 else f"{condition.dropouts} times"
            why = (
                f"the signal drops to exact silence {times} ({condition.dropped_share:.1%} of its "
                "length), as lost packets or a cut leave it"
            )
            found.append(Finding.of("damaged", why))
        return found

    @classmethod
    def compare(
        cls,
        records: Sequence[ScreenRecord],
        measured: Sequence[Measurement],
        calibration: Calibration,
    ) -> list[ScreenRecord]:
        """Compare the voices of one speaker's files.

        Returns:
            The records, with their consistency and, where it is too low, a finding.
        """
        if len(records) < 2:
            return list(records)
        mostly_bad = is_mostly_bad(records)
        fit = [i for i, record in enumerate(records) if not unmet_of(record)]
        # no conformal threshold here: at 1 % it needs 99 recordings of repeated speakers, and a
        # single mislabelled one among them would determine it
        threshold = calibration.verification_threshold
        require_finite(verification_threshold=threshold)
        # where most recordings are bad, their likeness is no measure of the good ones
        among = fit if mostly_bad and len(fit) > 1 else None
        scores = consistency_scores(np.stack([one.embedding for one in measured]), among=among)
        core = len(records if among is None else among) // 2 + 1
        judged = []
        for record, score in zip(records, scores, strict=True):
            voice = {"consistency": float(score), "consistency_threshold": threshold}
            details = RecordingDetails(**{**vars(record.details), **voice})
            record = replace(record, details=details)
            blamed = not (mostly_bad and len(fit) == 1 and not unmet_of(record))
            if threshold is not None and score < threshold and blamed:
                why = (
                    "the two files of this speaker do not sound like the same voice (cosine "
                    f"similarity {score:.2f}, expected at least {threshold:.2f}); with only two "
                    "files it is not possible to tell which one is wrong"
                    if len(records) == 2
                    else "its voice does not match the speaker's other files (mean cosine "
                    f"similarity {score:.2f} to the {core} files that agree best, "
                    f"expected at least {threshold:.2f}), so it may be another person's recording"
                )
                record = record.with_findings(Finding.of("inconsistent", why))
            judged.append(record)
        return judged


def told_by_findings(facts: FileFacts, calibration: Calibration) -> frozenset[str]:
    """Return the limits of the enrolment gate about which a finding of the screening tells.

    Args:
        facts: What is known about the file.
        calibration: Calibration that judges it.
    """
    told = []
    if facts.clipped_share > CLIPPED_SHARE:
        told.append("most_clipped_share")
    condition = facts.condition
    if condition.dropouts >= DROPOUTS or condition.dropped_share > DROPPED_SHARE:
        told.append("most_silence_s")
    rate = calibration.sample_rate_hz or 0
    if calibration.narrow_domain is None and (
        _narrow(facts, calibration) or facts.sample_rate_hz < rate
    ):
        told.append("least_bandwidth_hz")
    return frozenset(told)


def _consistencies(owners: Sequence[str], embeddings: NDArray[np.float64]) -> NDArray[np.float64]:
    rows: dict[str, list[int]] = defaultdict(list)
    for i, owner in enumerate(owners):
        rows[owner].append(i)
    scores = [
        consistency_scores(embeddings[members])
        for members in rows.values()
        if len(members) >= _FILES_A_SPEAKER
    ]
    return np.concatenate(scores) if scores else np.zeros(0)


def _unheard(facts: FileFacts, calibration: Calibration) -> list[Finding]:
    """Return what of a recording was not judged, because of what it holds."""
    heard, found = facts.heard, []
    if not heard.speaks:
        why = (
            "its level hardly changes, as that of hiss, hum or a tone: it holds no speech that "
            "could be judged"
        )
        return [Finding("out_of_domain", why, "check the microphone, and record speech")]
    if heard.speechless:
        numbers = ", ".join(map(str, heard.speechless))
        why = f"it holds no speech, but hum or hiss alone, in channel {numbers}: not judged"
        found.append(Finding("out_of_domain", why, _CHOOSE_CHANNEL))
    if heard.left_out:
        judged = facts.channels - heard.left_out
        why = f"only the first {judged} of its {facts.channels} channels, which differ, were judged"
        found.append(Finding("out_of_domain", why, _CHOOSE_CHANNEL))
    if heard.mixed > 1 and not isinstance(calibration.detector, ResponseDetector):
        why = (
            f"its {heard.mixed} channels differ, and a calibration made of clean files only "
            "judges their mean alone, which holds half of an attack in one of two"
        )
        found.append(Finding("out_of_domain", why, _CHOOSE_CHANNEL))
    return found


def voices_of(owners: Sequence[str], embeddings: NDArray[np.float64]) -> Mapping[str, Any]:
    """Return the fields of a calibration that hold what is known of the voices of speakers.

    Args:
        owners: Speaker of each recording.
        embeddings: (n, D) embeddings of unit length.
    """
    eer = all_pairs_eer(embeddings @ embeddings.T, owners)
    return {
        "consistencies": np.sort(_consistencies(owners, embeddings)),
        "same_voice": fit_same_voice(owners, embeddings),
        "verification_threshold": None if eer is None else eer.threshold,
    }


def fit_domain(
    spectra: Sequence[NDArray[np.float64]], owners: Sequence[str], *, folds: int
) -> tuple[CleanDistance, NDArray[np.float64]]:
    """Fit what spectra are like; return it, and the sorted out-of-fold distances."""
    from nip_audio.detectors.clean import CleanDistance  # needs scikit-learn
    from nip_audio.detectors.conformal import out_of_fold_distances

    rows = np.stack(spectra)
    domain = CleanDistance(shrinkage=None).fit(rows)
    return domain, np.sort(out_of_fold_distances(domain, rows, owners, folds=folds))


def _reach_hz(facts: FileFacts) -> float:
    return min(facts.condition.bandwidth_hz, facts.sample_rate_hz / 2)


def _narrow(facts: FileFacts, calibration: Calibration) -> bool:
    """Tell whether a recording holds no more than the band of a telephone."""
    return is_narrow(_reach_hz(facts), calibration.sample_rate_hz or 0)


def is_narrow(bandwidth_hz: float, sample_rate_hz: int) -> bool:
    """Tell whether a bandwidth is no more than a telephone's, to a model of a sample rate."""
    return bandwidth_hz < LEAST_BANDWIDTH * sample_rate_hz / 2


def _domain(
    calibration: Calibration, *, narrow: bool
) -> tuple[FittedDistance, NDArray[np.float64]]:
    if narrow and calibration.narrow_domain is not None:
        return calibration.narrow_domain, calibration.narrow_domain_distances
    if calibration.domain is None:
        raise CalibrationError(
            "the calibration of recordings has no domain detector, expected one; make it with "
            "nip-audio calibrate"
        )
    return calibration.domain, calibration.domain_distances
