"""Purify recordings: sound in, sound out, and what a model makes of the one and the other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from nip_audio.audio.features import LogMel
from nip_audio.audio.io import Audio, to_16_bits
from nip_audio.audio.resynthesis import ROUNDS, resynthesize
from nip_audio.core.adapter import Batch
from nip_audio.errors import InputError
from nip_audio.evaluation.quality import snr_db
from nip_audio.models.enrolment import embed_audio
from nip_audio.models.identification import identify
from nip_audio.models.pretrained import PretrainedModel
from nip_audio.purifiers.base import Purifier
from nip_audio.screening.judge import Judge
from nip_audio.screening.measure import facts_of, measure, noise_generator
from nip_audio.screening.measured import RETRY, MeasuredFile
from nip_audio.screening.records import Verdict

__all__ = [
    "Heard",
    "PurifiedAudio",
    "PurifiedSamples",
    "describe",
    "hear",
    "purify_audio",
    "purify_samples",
]

_FULL_SCALE = 32767 / 32768


@dataclass(frozen=True)
class Heard:
    """What a model, and its detector, make of one recording.

    Attributes:
        speaker: Whom the model names; None if it knows no speakers.
        score: His: a logit or a cosine.
        posterior: His share of a softmax over all speakers.
        verdict: The detector's; None without a calibration.
        distance: From clean audio, as the detector measures it.
        distance_threshold: Flagged above it.
    """

    speaker: str | None = None
    score: float | None = None
    posterior: float | None = None
    verdict: Verdict | None = None
    distance: float | None = None
    distance_threshold: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return rounded plain values."""
        return _rounded(asdict(self))


@dataclass(frozen=True)
class PurifiedSamples:
    """What a purifier makes of one recording, before it is rounded to 16 bits.

    Attributes:
        samples: (N,) in [-1, 1].
        asked: (F, T) spectrogram that the purifier asked for; None of one that works on samples.
        rounds: Corrections on the way back from the spectrogram; None without such a way.
    """

    samples: Tensor
    asked: Tensor | None = None
    rounds: int | None = None


@dataclass(frozen=True)
class PurifiedAudio:
    """A purified recording, judged as the 16-bit file that holds it.

    Attributes:
        samples: (N,) in [-1, 1], exactly what the file holds.
        sample_rate_hz: Their rate, which is the model's.
        purifier: The purifier's settings.
        seed: Of its randomness and the detector's noise.
        model_id: The model.
        before: What the model makes of the original.
        after: The same of ``samples``.
        cosine: Between the embeddings of the two.
        snr_db: Ratio of the original to what changed; None if nothing did.
        clipped_samples: Samples at full scale that were not there before.
        rounds: Corrections on the way back from the spectrogram; None of a purifier that works on
            samples.
        change_asked: Mean absolute change of the spectrogram that the purifier asked for, in units
            of the model's input; None likewise.
        change_missed: Mean absolute difference of the samples' own spectrogram to it: not every
            spectrogram is one of a sound with the original's phase. None likewise.
        spectrogram_before: (F, T) model input of the original.
        spectrogram_after: (F, T) model input of ``samples``.
    """

    samples: Tensor
    sample_rate_hz: int
    purifier: Mapping[str, Any]
    seed: int
    model_id: str
    before: Heard
    after: Heard
    cosine: float
    snr_db: float | None
    clipped_samples: int
    rounds: int | None
    change_asked: float | None
    change_missed: float | None
    spectrogram_before: Tensor
    spectrogram_after: Tensor

    @property
    def renamed(self) -> bool | None:
        """Whether the model names another speaker now; None if it knows none."""
        if self.before.speaker is None:
            return None
        return self.before.speaker != self.after.speaker

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values: all but samples and spectrograms."""
        return _rounded(
            {
                "purifier": dict(self.purifier),
                "before": self.before.to_json(),
                "after": self.after.to_json(),
                "renamed": self.renamed,
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
    """Purify one recording in memory; its samples are those of the 16-bit file it would become.

    Args:
        pretrained: The model that is defended.
        purifier: Its defence.
        audio: Recording at the model's rate, of any length.
        seed: With the recording's content, seeds the purifier, so that neither order nor name
            changes the result. Whoever knows the seed can work out a random purifier's draws.
        judge: Detector that judges both recordings; None judges neither.
        rounds: As in ``resynthesize``, for purifiers that work on the spectrogram.

    Raises:
        InputError: If the purifier works on a spectrogram that is no ``LogMel``, or the recording
            is at another rate.
    """
    before = hear(pretrained, audio, seed=seed, judge=judge)
    made = purify_samples(pretrained, purifier, audio, seed=seed, rounds=rounds)
    written = replace(audio, samples=to_16_bits(made.samples))
    return describe(pretrained, purifier, audio, before, made, written, seed=seed, judge=judge)


@torch.no_grad()
def purify_samples(
    pretrained: PretrainedModel,
    purifier: Purifier,
    audio: Audio,
    *,
    seed: int,
    rounds: int = ROUNDS,
) -> PurifiedSamples:
    """Return purified samples that no model has heard yet; see ``purify_audio``."""
    if audio.sample_rate_hz != pretrained.card.sample_rate_hz:
        raise InputError(
            f"the recording is at {audio.sample_rate_hz} Hz, this model expects "
            f"{pretrained.card.sample_rate_hz} Hz; read it with that rate"
        )
    model, samples = pretrained.model, audio.samples
    generator = noise_generator(seed, audio.content_sha256)
    if purifier.level == "raw":
        purified = purifier.purify(Batch(samples[None]), generator=generator)
        return PurifiedSamples(purified.x[0])
    if not isinstance(model.front_end, LogMel):
        raise InputError(
            f"{purifier.name} works on the model's input, which comes from "
            f"{type(model.front_end).__name__}, expected LogMel: no way back to sound is known; "
            "choose a purifier that works on samples"
        )
    if purifier.before is not None:
        samples = purifier.before.purify(Batch(samples[None]), generator=generator).x[0]
    before = model.to_input(Batch(samples[None]))
    asked = purifier.purify(before, generator=generator).x[0]
    made = resynthesize(samples, before.x[0], asked, model.front_end, rounds=rounds)
    return PurifiedSamples(made.samples, asked, rounds)


@torch.no_grad()
def describe(
    pretrained: PretrainedModel,
    purifier: Purifier,
    audio: Audio,
    before: Heard,
    made: PurifiedSamples,
    written: Audio,
    *,
    seed: int,
    judge: Judge | None = None,
) -> PurifiedAudio:
    """Compare a recording with what was written of its purified self.

    Args:
        pretrained: The model.
        purifier: What purified it.
        audio: The original.
        before: What was heard in it.
        made: What the purifier made.
        written: What the 16-bit file of it holds.
        seed: Of the purifier and the detector, whose noise is the same for both recordings.
        judge: Detector, if there is one.
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
        # under the noise of the original: a verdict must not turn by other draws alone
        after=hear(pretrained, replace(written, sha256=audio.sha256), seed=seed, judge=judge),
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
def hear(
    pretrained: PretrainedModel, audio: Audio, *, seed: int, judge: Judge | None = None
) -> Heard:
    """Tell what a model, and its detector if there is one, make of a recording."""
    heard = Heard()
    if pretrained.model.head is not None:
        (best,) = identify(pretrained, audio.samples, top=1)
        heard = Heard(best.speaker, best.score, best.posterior)
    if judge is None:
        return heard
    known = judge.calibration
    measurement = measure(pretrained, audio, known.config, names=known.names, seed=seed)
    record = judge.judge(MeasuredFile("", None, RETRY, facts_of(audio), measurement))
    return replace(
        heard,
        verdict=record.verdict,
        distance=record.distance,
        distance_threshold=record.distance_threshold,
    )


def _at_full_scale(audio: Audio) -> Tensor:
    return audio.samples.abs() >= _FULL_SCALE


def _rounded(values: Mapping[str, Any]) -> dict[str, Any]:
    return {k: round(v, 6) if isinstance(v, float) else v for k, v in values.items()}
