"""Examine one flagged recording again, before and after purification.

The result shows what the detector's verdict and the model's decision rest on.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nip_audio.audio.features import LogMel
from nip_audio.audio.io import Audio, ReadSettings
from nip_audio.audio.manifest import Recording
from nip_audio.core.adapter import Batch
from nip_audio.core.influence import input_influence, neuron_influence
from nip_audio.errors import AudioError, InputError
from nip_audio.models.pretrained import PretrainedModel
from nip_audio.purifiers.base import Purifier
from nip_audio.reporting.evidence import Evidence, require_unchanged
from nip_audio.screening.judge import Judge
from nip_audio.screening.measure import measure
from nip_audio.screening.records import ScreenRecord
from nip_audio.workflows.flagged import PURIFIED
from nip_audio.workflows.purify import Assessment, PurifiedAudio, assess, purify_audio

__all__ = ["Examined", "Examiner", "Excerpt"]


@dataclass(frozen=True)
class Excerpt:
    """Beginning of a recording, with the influences on the model's decision about it.

    Attributes:
        samples: (N,) waveform in [-1, 1].
        spectrogram: (F, T) model input.
        neurons: (M,) influence of each neuron of the examined layer (NIP, Eq. 2); None if the
            model's card names no layer.
        bands: (F,) influence of each band of the model input, summed over the frames.
    """

    samples: Tensor
    spectrogram: Tensor
    neurons: Tensor | None
    bands: Tensor


@dataclass(frozen=True)
class Examined:
    """Everything that is drawn of a recording.

    Attributes:
        duration_s: Duration of the whole file in seconds.
        sample_rate_hz: Sample rate of the excerpts.
        layer: Layer whose neurons are examined; None if the model's card names none.
        highest_hz: Upper end of the highest input band in Hz; None if the front end does not say.
        heard: Prediction and verdict for the whole file.
        before: Excerpt of the original.
        after: Excerpt of the purified copy; None if the file was not purified. Only adversarial
            files are, because purification removes no other problem.
        purified: Purified copy and its measurements; None if the file was not purified.
        evidence: Evidence of the detector for its verdict.
    """

    duration_s: float
    sample_rate_hz: int
    layer: str | None
    highest_hz: float | None
    heard: Assessment
    before: Excerpt
    after: Excerpt | None
    purified: PurifiedAudio | None
    evidence: Evidence


@dataclass(frozen=True)
class Examiner:
    """Examines recordings again, with the model and settings of a run.

    Attributes:
        pretrained: Model of the run.
        settings: Settings with which the run read its files.
        seed: Seed of the run's noise generator.
        judge: Judge of the run; None if its calibration is not available.
        purifier: Purifier of the model; None if it has none.
        seconds: Length of the excerpt that is drawn and played, from the beginning.
    """

    pretrained: PretrainedModel
    settings: ReadSettings
    seed: int = 0
    judge: Judge | None = None
    purifier: Purifier | None = None
    seconds: float = 10.0

    def __post_init__(self) -> None:
        """Check the length of the excerpt.

        Raises:
            InputError: If it is not above 0.
        """
        if not self.seconds > 0:
            raise InputError(
                f"seconds is {self.seconds}, expected more than 0; leave it out for 10 seconds"
            )

    def examine(self, record: ScreenRecord, recording: Recording) -> Examined:
        """Read one file again and examine it.

        Args:
            record: Record of the file in the run.
            recording: File to read.

        Raises:
            AudioError: If the file cannot be read any more, or was changed since the screening.
        """
        audio = recording.read(self.settings)
        require_unchanged(record, audio.sha256, recording.path, AudioError)
        purified, after = None, None
        if self.purifier is not None and record.verdict in PURIFIED:
            purified = purify_audio(
                self.pretrained, self.purifier, audio, seed=self.seed, judge=self.judge
            )
        taps = self.pretrained.card.default_taps
        layer = taps[-1] if taps else None
        if purified is not None:
            after = self._excerpt(purified.samples, purified.sample_rate_hz, layer)
        heard = purified.before if purified else assess(self.pretrained, audio, seed=self.seed)
        evidence = self._evidence(audio)
        return Examined(
            duration_s=audio.duration_s,
            sample_rate_hz=audio.sample_rate_hz,
            layer=layer,
            highest_hz=_highest_hz(self.pretrained.model.front_end),
            heard=heard,
            before=self._excerpt(audio.samples, audio.sample_rate_hz, layer),
            after=after,
            purified=purified,
            evidence=evidence,
        )

    def _excerpt(self, samples: Tensor, rate_hz: int, layer: str | None) -> Excerpt:
        samples = samples[: round(self.seconds * rate_hz)]
        model = self.pretrained.model
        with torch.no_grad():
            batch = model.to_input(Batch(samples[None].to(next(model.parameters()).device)))
        return Excerpt(
            samples=samples,
            spectrogram=batch.x[0].cpu(),
            neurons=None if layer is None else neuron_influence(model, batch, layer)[0].cpu(),
            bands=input_influence(model, batch)[0].sum(dim=1).cpu(),
        )

    def _evidence(self, audio: Audio) -> Evidence:
        if self.judge is None:
            return Evidence()
        known = self.judge.calibration
        measured = measure(self.pretrained, audio, known.config, names=known.names, seed=self.seed)
        return Evidence.of(known, measured)


def _highest_hz(front_end: object) -> float | None:
    return float(front_end.fbank.compute_fbanks.f_max) if isinstance(front_end, LogMel) else None
