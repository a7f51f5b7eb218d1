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
from torch import Tensor

from nip_audio.audio import MODALITY
from nip_audio.audio.adapter import WaveformAdapter
from nip_audio.audio.condition import condition_of
from nip_audio.audio.front_ends import levels_of
from nip_audio.audio.io import Audio
from nip_audio.audio.manifest import Recording
from nip_audio.core.metrics import all_pairs_eer
from nip_audio.core.modality import Modality
from nip_audio.core.nccr import NccrConfig
from nip_audio.detectors.consistency import consistency_scores
from nip_audio.detectors.fitted import FittedDistance
from nip_audio.errors import CalibrationError
from nip_audio.models.pretrained import PretrainedModel
from nip_audio.screening.calibration import Calibration
from nip_audio.screening.details import RecordingDetails
from nip_audio.screening.kind import Kind, Words
from nip_audio.screening.measure import measure_evidence, noise_generator
from nip_audio.screening.measured import FileFacts, Measurement
from nip_audio.screening.records import RISKS, Finding, ScreenRecord

if TYPE_CHECKING:
    from nip_audio.detectors.clean import CleanDistance

__all__ = ["LEAST_NOISE_RMS", "Recordings"]

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

_FILES_A_SPEAKER = 3
_MOST_BANDS, _FEW_BANDS = 128, 64

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
    "verdicts mean little: {outside} of {judged} files are out of domain, and {unusual} respond to "
    "noise as at most 5 % of clean recordings do. Either most files are attacked, or they are "
    "another kind of audio (microphone, codec, language, synthetic voices). Calibrate on clean "
    "audio of your own: nip-audio calibrate CLEAN_DIR --out my.calibration, then screen with "
    "--calibration my.calibration",
    remedies=RISKS,
)


@dataclass(frozen=True)
class Recordings(Kind):
    """How a screening measures and judges recordings.

    Altered copies are found by the correlation of their samples.
    """

    modality: ClassVar[Modality] = MODALITY
    words: ClassVar[Words] = _WORDS
    details: ClassVar[type[RecordingDetails]] = RecordingDetails
    finds_altered_copies: ClassVar[bool] = True

    reader: WaveformAdapter

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
        )

    @torch.no_grad()
    def measure(
        self,
        pretrained: PretrainedModel,
        item: Audio,
        config: NccrConfig,
        *,
        names: bool,
        seed: int,
    ) -> Measurement:
        """Measure one recording; equal content and seed give equal results."""
        model = pretrained.model if names else pretrained.model.without_head()
        result, evidence = measure_evidence(model, item, config, seed)
        levels = _few_bands(levels_of(model.front_end, result.model_input))
        features = levels - levels.mean()
        spectrum = torch.cat([features.mean(dim=1), features.std(dim=1)])
        embedding = torch.nn.functional.normalize(result.embedding, dim=0).cpu()
        return Measurement(
            embedding=embedding.double().numpy(),
            evidence=evidence,
            spectrum=spectrum.double().cpu().numpy(),
        )

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

    def noisy_copy(self, item: Audio, largest_rms: float, seed: int) -> Audio:
        """Return a copy with white noise, whose level and samples depend on seed and content."""
        generator = noise_generator(seed, f"tolerated noise:{item.sha256}")
        share = float(torch.rand(1, generator=generator))
        rms = LEAST_NOISE_RMS * (largest_rms / LEAST_NOISE_RMS) ** share
        noise = rms * torch.randn(item.samples.shape, generator=generator)
        return replace(
            item,
            samples=(item.samples + noise).clamp(-1.0, 1.0),
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
        from nip_audio.detectors.clean import CleanDistance  # needs scikit-learn
        from nip_audio.detectors.conformal import out_of_fold_distances

        spectra = np.stack([m.spectrum for m in measured])
        embeddings = np.stack([m.embedding for m in measured])
        domain = CleanDistance(shrinkage=None).fit(spectra)
        eer = all_pairs_eer(embeddings @ embeddings.T, owners)
        return {
            "sample_rate_hz": self.reader.settings.sample_rate_hz,
            "domain": domain,
            "domain_distances": np.sort(
                out_of_fold_distances(domain, spectra, owners, folds=folds)
            ),
            "consistencies": np.sort(_consistencies(owners, embeddings)),
            "verification_threshold": None if eer is None else eer.threshold,
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
        domain = _domain(calibration)
        return RecordingDetails(
            domain_distance=float(domain.distance([measured.spectrum])[0]),
            domain_threshold=float(calibration.domain_distances[-1]) * DOMAIN_MARGIN,
            duration_s=facts.duration_s,
            sample_rate_hz=facts.sample_rate_hz,
            channels=facts.channels,
            bandwidth_hz=facts.condition.bandwidth_hz,
        )

    @classmethod
    def outside(
        cls, details: RecordingDetails, facts: FileFacts, calibration: Calibration
    ) -> list[Finding]:
        """Return whether spectrum or bandwidth are unlike those of the calibration."""
        found = []
        distance, limit = details.domain_distance or 0.0, details.domain_threshold or 0.0
        if distance > limit:
            why = (
                "its spectrum is unlike that of the audio that the detector was calibrated on "
                f"(distance {distance:.1f}, limit {limit:.1f}), so the detector's result means "
                "little for this file"
            )
            found.append(Finding.of("out_of_domain", why))
        rate = calibration.sample_rate_hz or 0
        reach = min(facts.condition.bandwidth_hz, facts.sample_rate_hz / 2)
        if reach < LEAST_BANDWIDTH * rate / 2 or facts.sample_rate_hz < rate:
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
    def damage(cls, facts: FileFacts) -> list[Finding]:
        """Return whether a recording is clipped or interrupted."""
        found = []
        if facts.clipped_share > CLIPPED_SHARE:
            why = (
                f"{facts.clipped_share:.1%} of its samples are at full scale, so it was recorded "
                "too loud and is clipped"
            )
            found.append(Finding.of("damaged", why))
        condition = facts.condition
        if condition.dropouts >= DROPOUTS or condition.dropped_share > DROPPED_SHARE:
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
        # no conformal threshold here: at 1 % it needs 99 recordings of repeated speakers, and a
        # single mislabelled one among them would determine it
        threshold = calibration.verification_threshold
        scores = consistency_scores(np.stack([one.embedding for one in measured]))
        judged = []
        for record, score in zip(records, scores, strict=True):
            voice = {"consistency": float(score), "consistency_threshold": threshold}
            details = RecordingDetails(**{**vars(record.details), **voice})
            record = replace(record, details=details)
            if threshold is not None and score < threshold:
                why = (
                    "the two files of this speaker do not sound like the same voice (cosine "
                    f"similarity {score:.2f}, expected at least {threshold:.2f}); with only two "
                    "files it is not possible to tell which one is wrong"
                    if len(records) == 2
                    else "its voice does not match the speaker's other files (mean cosine "
                    f"similarity {score:.2f} to the {len(records) // 2 + 1} files that agree best, "
                    f"expected at least {threshold:.2f}), so it may be another person's recording"
                )
                record = record.with_findings(Finding.of("inconsistent", why))
            judged.append(record)
        return judged


def _few_bands(levels: Tensor) -> Tensor:
    """Join neighbouring bands of a spectrum (F, T) with many more than a spectrogram has."""
    if len(levels) <= _MOST_BANDS:
        return levels
    pooled = torch.nn.functional.adaptive_avg_pool1d(levels.T[None], _FEW_BANDS)
    return pooled[0].T


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


def _domain(calibration: Calibration) -> FittedDistance:
    if calibration.domain is None:
        raise CalibrationError(
            "the calibration of recordings has no domain detector, expected one; make it with "
            "nip-audio calibrate"
        )
    return calibration.domain
