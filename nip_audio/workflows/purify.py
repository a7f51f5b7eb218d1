"""Purify recordings, and compare the model's predictions before and after."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nip_audio.audio.features import LogMel
from nip_audio.audio.io import Audio, to_16_bits, write_audio
from nip_audio.audio.quality import snr_db
from nip_audio.audio.resynthesis import ROUNDS, resynthesize
from nip_audio.core.adapter import Batch
from nip_audio.errors import InputError
from nip_audio.models.enrolment import embed_audio
from nip_audio.models.identification import identify
from nip_audio.models.pretrained import PretrainedModel
from nip_audio.purifiers.base import Purifier
from nip_audio.screening.judge import Judge
from nip_audio.screening.measure import facts_of, measure, noise_generator
from nip_audio.screening.measured import RETRY, MeasuredFile
from nip_audio.screening.records import Verdict

__all__ = [
    "Assessment",
    "PurifiedAudio",
    "PurifiedSamples",
    "assess",
    "compare",
    "purify_audio",
    "purify_samples",
]

_FULL_SCALE = 32767 / 32768


@dataclass(frozen=True)
class Assessment:
    """Prediction of a model, and verdict of its detector, for one recording.

    Attributes:
        speaker: Predicted speaker; None if the model has no speakers.
        score: Score of the predicted speaker: a logit or a cosine.
        posterior: Softmax probability of the predicted speaker over all speakers.
        verdict: Verdict of the detector; None without a calibration.
        distance: Distance from clean audio as measured by the detector.
        distance_threshold: Distance above which the detector flags a recording.
    """

    speaker: str | None = None
    score: float | None = None
    posterior: float | None = None
    verdict: Verdict | None = None
    distance: float | None = None
    distance_threshold: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values, rounded to 6 digits."""
        return _rounded(asdict(self))


@dataclass(frozen=True)
class PurifiedSamples:
    """Output of a purifier for one recording, before it is rounded to 16 bits.

    Attributes:
        samples: (N,) samples in [-1, 1].
        asked: (F, T) spectrogram that the purifier requested; None for a purifier of waveforms.
        rounds: Number of corrections in the resynthesis from the spectrogram; None for a purifier
            of waveforms.
    """

    samples: Tensor
    asked: Tensor | None = None
    rounds: int | None = None


@dataclass(frozen=True)
class PurifiedAudio:
    """A purified recording, assessed as the 16-bit file that holds it.

    Attributes:
        samples: (N,) samples in [-1, 1], exactly as in the file.
        sample_rate_hz: Sample rate of the recording and of the model.
        purifier: Settings of the purifier.
        seed: Seed of the purifier's randomness and the detector's noise.
        model_id: Identity of the model.
        before: Prediction and verdict for the original.
        after: Prediction and verdict for ``samples``.
        cosine: Cosine between the embeddings of the original and of ``samples``.
        snr_db: Ratio of the original to the change, in decibels; None if nothing changed.
        clipped_samples: Number of samples at full scale that were not so before.
        rounds: Number of corrections in the resynthesis from the spectrogram; None for a purifier
            of waveforms.
        change_asked: Mean absolute change of the spectrogram that the purifier requested, in units
            of the model's input; None for a purifier of waveforms.
        change_missed: Mean absolute difference between the requested spectrogram and that of
            ``samples``, since not every spectrogram belongs to a waveform with the original's
            phase; None for a purifier of waveforms.
        spectrogram_before: (F, T) model input of the original.
        spectrogram_after: (F, T) model input of ``samples``.
    """

    samples: Tensor
    sample_rate_hz: int
    purifier: Mapping[str, Any]
    seed: int
    model_id: str
    before: Assessment
    after: Assessment
    cosine: float
    snr_db: float | None
    clipped_samples: int
    rounds: int | None
    change_asked: float | None
    change_missed: float | None
    spectrogram_before: Tensor
    spectrogram_after: Tensor

    @property
    def speaker_changed(self) -> bool | None:
        """Whether the predicted speaker has changed; None if the model has no speakers."""
        if self.before.speaker is None:
            return None
        return self.before.speaker != self.after.speaker

    def write(self, path: str | Path, *, force: bool = False) -> None:
        """Write the purified recording as a 16-bit WAV or FLAC file.

        Args:
            path: File to write.
            force: Overwrite an existing file.

        Raises:
            InputError: If the name has another ending.
            OutputError: If the file exists and ``force`` is false, or cannot be written.
        """
        write_audio(Path(path), self.samples, self.sample_rate_hz, force=force)

    def to_json(self) -> dict[str, Any]:
        """Return everything except samples and spectrograms as plain JSON values."""
        return _rounded(
            {
                "purifier": dict(self.purifier),
                "before": self.before.to_json(),
                "after": self.after.to_json(),
                "renamed": self.speaker_changed,
                "cosine": self.cosine,
                "snr_db": self.snr_db,
                "clipped_samples": self.clipped_samples,
                "rounds": self.rounds,
                "change_asked": self.change_asked,
                "change_missed": self.change_missed,
                "sample_rate_hz": self.sample_rate_hz,
                "seed": self.seed,
                "model_id": self.model_id,
            }
        )


def purify_audio(
    pretrained: PretrainedModel,
    purifier: Purifier,
    audio: Audio,
    *,
    seed: int,
    judge: Judge | None = None,
    rounds: int = ROUNDS,
) -> PurifiedAudio:
    """Purify one recording in memory; the result has the samples of the 16-bit file it would be.

    Args:
        pretrained: Model to defend.
        purifier: Purifier that is applied.
        audio: Recording at the model's sample rate, of any length.
        seed: Seed of the purifier, combined with the content of the recording, so that neither
            order nor name affects the result. Anyone who knows the seed can compute the draws of a
            random purifier.
        judge: Detector that judges the recording before and after; None skips the verdict.
        rounds: Number of corrections in ``resynthesize``, for a purifier of spectrograms.

    Raises:
        InputError: If the purifier works on model input that is not a ``LogMel`` spectrogram, or
            the recording has another sample rate.
    """
    before = assess(pretrained, audio, seed=seed, judge=judge)
    made = purify_samples(pretrained, purifier, audio, seed=seed, rounds=rounds)
    written = replace(audio, samples=to_16_bits(made.samples))
    return compare(pretrained, purifier, audio, before, made, written, seed=seed, judge=judge)


@torch.no_grad()
def purify_samples(
    pretrained: PretrainedModel,
    purifier: Purifier,
    audio: Audio,
    *,
    seed: int,
    rounds: int = ROUNDS,
) -> PurifiedSamples:
    """Purify one recording without assessing it; arguments are those of ``purify_audio``."""
    if audio.sample_rate_hz != pretrained.card.sample_rate_hz:
        raise InputError(
            f"the recording is at {audio.sample_rate_hz} Hz, this model expects "
            f"{pretrained.card.sample_rate_hz} Hz; read it at that rate"
        )
    model, samples = pretrained.model, audio.samples
    generator = noise_generator(seed, audio.content_sha256)
    if purifier.level == "raw":
        purified = purifier.purify(Batch(samples[None]), generator=generator)
        return PurifiedSamples(purified.x[0])
    if not isinstance(model.front_end, LogMel):
        raise InputError(
            f"{purifier.name} works on the model's input, which comes from "
            f"{type(model.front_end).__name__}, expected LogMel: other input cannot be converted "
            "back to a waveform; choose a purifier that works on waveforms"
        )
    if purifier.before is not None:
        samples = purifier.before.purify(Batch(samples[None]), generator=generator).x[0]
    before = model.to_input(Batch(samples[None]))
    asked = purifier.purify(before, generator=generator).x[0]
    made = resynthesize(samples, before.x[0], asked, model.front_end, rounds=rounds)
    return PurifiedSamples(made.samples, asked, rounds)


@torch.no_grad()
def compare(
    pretrained: PretrainedModel,
    purifier: Purifier,
    audio: Audio,
    before: Assessment,
    made: PurifiedSamples,
    written: Audio,
    *,
    seed: int,
    judge: Judge | None = None,
) -> PurifiedAudio:
    """Compare a recording with the purified recording that was written.

    Args:
        pretrained: Model to defend.
        purifier: Purifier that was applied.
        audio: Original recording.
        before: Prediction and verdict for the original.
        made: Output of the purifier.
        written: Purified recording, as read back from its 16-bit file.
        seed: Seed of the purifier and of the detector, whose noise is the same for both recordings.
        judge: Detector that judges the purified recording; None skips the verdict.
    """
    old, new = (pretrained.model.to_input(Batch(a.samples[None])).x[0] for a in (audio, written))
    voices = [embed_audio(pretrained, a.samples) for a in (audio, written)]
    changed = not torch.equal(audio.samples, written.samples)
    asked = made.asked
    return PurifiedAudio(
        samples=written.samples,
        sample_rate_hz=written.sample_rate_hz,
        purifier=purifier.settings(),
        seed=seed,
        model_id=pretrained.model_id,
        before=before,
        # use the noise of the original: a verdict must not change through other draws alone
        after=assess(pretrained, replace(written, sha256=audio.sha256), seed=seed, judge=judge),
        cosine=float(voices[0] @ voices[1]),
        snr_db=snr_db(audio.samples, written.samples) if changed else None,
        clipped_samples=int((_at_full_scale(written) & ~_at_full_scale(audio)).sum()),
        rounds=made.rounds,
        change_asked=None if asked is None else float((asked - old).abs().mean()),
        change_missed=None if asked is None else float((asked - new).abs().mean()),
        spectrogram_before=old,
        spectrogram_after=new,
    )


@torch.no_grad()
def assess(
    pretrained: PretrainedModel, audio: Audio, *, seed: int, judge: Judge | None = None
) -> Assessment:
    """Predict the speaker of a recording, and judge it if there is a detector.

    Args:
        pretrained: Model that predicts the speaker.
        audio: Recording at the model's sample rate.
        seed: Seed of the detector's noise, combined with the content of the recording.
        judge: Detector that judges the recording; None skips the verdict.
    """
    found = Assessment()
    if pretrained.model.head is not None:
        (best,) = identify(pretrained, audio.samples, top=1)
        found = Assessment(best.speaker, best.score, best.posterior)
    if judge is None:
        return found
    known = judge.calibration
    measurement = measure(pretrained, audio, known.config, names=known.names, seed=seed)
    record = judge.judge(MeasuredFile("", None, RETRY, facts_of(audio), measurement))
    return replace(
        found,
        verdict=record.verdict,
        distance=record.distance,
        distance_threshold=record.distance_threshold,
    )


def _at_full_scale(audio: Audio) -> Tensor:
    return audio.samples.abs() >= _FULL_SCALE


def _rounded(values: Mapping[str, Any]) -> dict[str, Any]:
    return {k: round(v, 6) if isinstance(v, float) else v for k, v in values.items()}
