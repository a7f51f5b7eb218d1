"""Look at one flagged file again: what the verdict and the decision rest on, before and after."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nip_audio.audio.features import LogMel
from nip_audio.audio.io import Audio, ReadSettings
from nip_audio.audio.manifest import Recording
from nip_audio.core.adapter import Batch
from nip_audio.core.decision import evidence_names
from nip_audio.core.influence import input_influence, neuron_influence
from nip_audio.core.noise import Noise
from nip_audio.errors import AudioError, CalibrationError, InputError, StateError
from nip_audio.models.pretrained import PretrainedModel
from nip_audio.purification.audio import Heard, PurifiedAudio, hear, purify_audio
from nip_audio.purification.flagged import PURIFIED, own_purifier
from nip_audio.purifiers.base import Purifier
from nip_audio.screening.calibration import Calibration
from nip_audio.screening.judge import Judge
from nip_audio.screening.measure import measure
from nip_audio.screening.pipeline import Screener
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
        evidence: Robust deviations from clean audio, (noises, rows); None without a calibration.
        noises: The detector's.
        rows: Names of the layers and of the changes of the decision.
    """

    duration_s: float
    sample_rate_hz: int
    layer: str | None
    highest_hz: float | None
    heard: Heard
    before: Excerpt
    after: Excerpt | None
    purified: PurifiedAudio | None
    evidence: NDArray[np.float64] | None
    noises: tuple[Noise, ...]
    rows: tuple[str, ...]


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

    @staticmethod
    def of_screening(screener: Screener) -> Examiner:
        """Make an examiner with what a screening was just made with."""
        return Examiner(
            screener.pretrained,
            screener.adapter.settings,
            screener.seed,
            screener.judge,
            _purifier_of(screener.pretrained),
        )

    @staticmethod
    def of_run(
        summary: Mapping[str, Any],
        pretrained: PretrainedModel,
        *,
        calibration: Path | None = None,
        seconds: float = 10.0,
    ) -> Examiner:
        """Make an examiner with the settings of a run.

        Args:
            summary: The run's.
            pretrained: The run's model.
            calibration: The run's calibration; None takes the model's own if it is that one, and
                otherwise does without.
            seconds: How much of a file is drawn and played, from its beginning.

        Raises:
            StateError: If the model is another, or a calibration that was given cannot be read.
            CalibrationError: If a calibration that was given is another.
            InputError: If nothing is to be drawn.
        """
        if not seconds > 0:
            raise InputError(f"seconds is {seconds}, expected more than 0; 10 are the default")
        if pretrained.model_id != summary["model_id"]:
            raise StateError(
                f"the run was made with model {summary['model']} {summary['model_id'][:12]}…, got "
                f"{pretrained.model_id[:12]}…; pass --model with that one, or --details 0"
            )
        return Examiner(
            pretrained,
            ReadSettings(**summary["read"]),
            summary["seed"],
            _judge_of(summary, pretrained, calibration),
            _purifier_of(pretrained),
            seconds,
        )

    def examine(self, record: ScreenRecord, recording: Recording) -> Examined:
        """Read one file again and look at it.

        Args:
            record: What the run says of it.
            recording: Where it lies.

        Raises:
            AudioError: If it cannot be read any more, or is not what was screened.
        """
        audio = recording.read(self.settings)
        if audio.sha256 != record.sha256:
            raise AudioError(
                recording.path,
                code="changed",
                found="the file is not the one that was screened: its SHA-256 is another",
                remedy="screen again",
            )
        purified, after = None, None
        if self.purifier is not None and record.verdict in PURIFIED:
            purified = purify_audio(
                self.pretrained, self.purifier, audio, seed=self.seed, judge=self.judge
            )
        taps = self.pretrained.card.default_taps
        layer = taps[-1] if taps else None
        if purified is not None:
            after = self._excerpt(purified.samples, purified.sample_rate_hz, layer)
        heard = purified.before if purified else hear(self.pretrained, audio, seed=self.seed)
        noises, rows, evidence = self._evidence(audio)
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
            noises=noises,
            rows=rows,
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

    def _evidence(
        self, audio: Audio
    ) -> tuple[tuple[Noise, ...], tuple[str, ...], NDArray[np.float64] | None]:
        """Return noises, names of rows, and (noises, rows) deviations."""
        if self.judge is None:
            return (), (), None
        calibration = self.judge.calibration
        config = calibration.config
        measured = measure(self.pretrained, audio, config, names=calibration.names, seed=self.seed)
        deviations = calibration.detector.explain(
            calibration.rates.transform([measured.evidence])[0]
        )
        names = [name.split(" | ") for name in evidence_names(config, head=calibration.names)]
        rows = tuple(dict.fromkeys(row for _, row in names))
        places = [noise.name for noise in config.noises]
        table = np.full((len(places), len(rows)), np.nan)
        for (noise, row), value in zip(names, deviations, strict=True):
            table[places.index(noise), rows.index(row)] = value
        return config.noises, rows, table


def _judge_of(
    summary: Mapping[str, Any], pretrained: PretrainedModel, given: Path | None
) -> Judge | None:
    path = given or pretrained.card.calibration_path
    if path is None:
        return None
    try:
        calibration = Calibration.load(path, model_id=pretrained.model_id)
    except StateError:
        if given is not None:
            raise
        return None  # the model's own is of an earlier version, so not this run's
    if calibration.fingerprint == summary["calibration"]:
        return Judge(calibration, summary["false_positive_rate"])
    if given is not None:
        raise CalibrationError(
            f"the run was judged with calibration {summary['calibration'][:12]}…, {given} is "
            f"{calibration.fingerprint[:12]}…; pass --calibration with that one, or leave it out"
        )
    return None


def _purifier_of(pretrained: PretrainedModel) -> Purifier | None:
    return None if pretrained.card.purifier_path is None else own_purifier(pretrained)


def _highest_hz(front_end: object) -> float | None:
    return float(front_end.fbank.compute_fbanks.f_max) if isinstance(front_end, LogMel) else None
