"""Look at one flagged file again: what the verdict and the decision rest on, before and after."""

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
from nip_audio.purification.audio import Assessment, PurifiedAudio, assess, purify_audio
from nip_audio.purification.flagged import PURIFIED
from nip_audio.purifiers.base import Purifier
from nip_audio.reporting.evidence import Evidence, require_unchanged
from nip_audio.screening.judge import Judge
from nip_audio.screening.measure import measure
from nip_audio.screening.records import ScreenRecord

__all__ = ["Examined", "Examiner", "Excerpt"]


@dataclass(frozen=True)
class Excerpt:
    """The beginning of a recording, and what the model's decision about it rests on.

    Attributes:
        samples: (N,) in [-1, 1].
        spectrogram: (F, T) model input.
        neurons: (M,) influence of the neurons of ``layer``; None if the card names no layer.
        bands: (F,) influence of the bands of the input, all frames together.
    """

    samples: Tensor
    spectrogram: Tensor
    neurons: Tensor | None
    bands: Tensor


@dataclass(frozen=True)
class Examined:
    """Everything that is drawn of a file.

    Attributes:
        duration_s: Of the whole file.
        sample_rate_hz: Of the samples.
        layer: Whose neurons are looked at.
        highest_hz: Upper end of the highest band; None if the front end does not say.
        heard: What the model makes of the whole file.
        before: Of the file.
        after: Of its purified copy; None if it was not purified, which mends
            no other flaw than an attack.
        purified: What came of it; None likewise.
        evidence: What the verdict rests on.
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
    """Model and settings with which files are looked at again.

    Attributes:
        pretrained: The run's model.
        settings: How the run reads files.
        seed: The run's.
        judge: The run's calibration; None if it is not at hand.
        purifier: That of the model; None if it has none.
        seconds: How much of a file is drawn and played, from its beginning.
    """

    pretrained: PretrainedModel
    settings: ReadSettings
    seed: int = 0
    judge: Judge | None = None
    purifier: Purifier | None = None
    seconds: float = 10.0

    def __post_init__(self) -> None:
        """Check.

        Raises:
            InputError: If nothing is to be drawn.
        """
        if not self.seconds > 0:
            raise InputError(f"seconds is {self.seconds}, expected more than 0; 10 are the default")

    def examine(self, record: ScreenRecord, recording: Recording) -> Examined:
        """Read one file again and look at it.

        Args:
            record: What the run says of it.
            recording: Where it lies.

        Raises:
            AudioError: If it cannot be read any more, or is not what was screened.
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
