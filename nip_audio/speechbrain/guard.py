"""Judge recordings with the detector of the screening, from a recipe, script or data pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from nip_audio.audio.adapter import WaveformAdapter
from nip_audio.audio.io import ReadSettings, read_audio
from nip_audio.errors import AudioError, CalibrationError, InputError
from nip_audio.models.pretrained import PretrainedModel, load_pretrained
from nip_audio.screening.calibration import Calibration, choose_calibration
from nip_audio.screening.engines.local import LocalEngine
from nip_audio.screening.judge import Judge
from nip_audio.screening.measured import RETRY, MeasuredFile
from nip_audio.screening.pipeline import Screener, choose_seed
from nip_audio.screening.records import ScreenRecord, error_of
from nip_audio.speechbrain.waveforms import audio_of, split_batch

__all__ = ["Guard"]


class Guard:
    """Judges recordings by one model and its calibration, as ``nip-audio detect`` does.

    In a YAML::

        guard: !new:nip_audio.speechbrain.Guard
          model: xvector-libri251
          calibration: my.calibration
          fpr: 0.01

    Args:
        model: Name or directory of a model, or the loaded model. ``load_pretrained`` reads the
            directory: offline, after checking hashes, and without running code from the YAML.
        calibration: Calibration or its file; None takes the one that comes with the model.
        fpr: False-positive rate: share of clean recordings that may be called adversarial.
        seed: Seed of the noise generator; None draws a secret one, which ``screener.seed`` has.
            Whoever knows it can compute the noise.
        max_duration_s: Longest recording, in seconds, that is judged.
        workers: Processes that measure a whole data set; None takes one per core. A model without
            a directory can only be measured in this process, with 1.

    Raises:
        ModelCardError: If there is no such model.
        CalibrationError: If there is no calibration, or it has too few files for ``fpr``.
        StateError: If the calibration is of another model.
        InputError: If a number is invalid.
    """

    def __init__(
        self,
        model: str | Path | PretrainedModel = "xvector-libri251",
        calibration: str | Path | Calibration | None = None,
        *,
        fpr: float = 0.01,
        seed: int | None = None,
        max_duration_s: float = 120.0,
        workers: int | None = None,
    ) -> None:
        """Load the model and its calibration."""
        pretrained = model if isinstance(model, PretrainedModel) else load_pretrained(model)
        if not isinstance(calibration, Calibration):
            chosen = choose_calibration(pretrained, Path(calibration) if calibration else None)
            calibration = Calibration.load(chosen, model_id=pretrained.model_id)
        elif calibration.model_id != pretrained.model_id:
            raise CalibrationError(
                f"the calibration is of model {calibration.model_id[:12]}, but the guard's model "
                f"is {pretrained.model_id[:12]} ({pretrained.card.name}); calibrate the guard's "
                "model"
            )
        settings = ReadSettings(pretrained.card.sample_rate_hz, max_duration_s=max_duration_s)
        self._settings = settings
        self.screener = Screener(
            pretrained,
            Judge(calibration, fpr),
            WaveformAdapter(settings),
            choose_seed(seed),
            LocalEngine(workers),
        )
        self._seed = seed

    def screener_of(self, out: Path) -> Screener:
        """Return the screener for a folder, which keeps the seed of a run that is resumed there."""
        return replace(self.screener, seed=choose_seed(self._seed, out))

    @property
    def pretrained(self) -> PretrainedModel:
        """Model that the guard protects."""
        return self.screener.pretrained

    @property
    def settings(self) -> ReadSettings:
        """Settings for reading recordings."""
        return self._settings

    def judge_file(self, path: str | Path, *, span: tuple[int, int] | None = None) -> ScreenRecord:
        """Judge one file by itself.

        Raises:
            AudioError: If the file cannot be used.
        """
        measured = self.screener.measurer.measure_item(read_audio(path, self.settings, span=span))
        return self.screener.judge.judge(replace(measured, id=str(path)))

    def judge_waveforms(
        self, wavs: Tensor, wav_lens: Tensor | None = None, *, ids: Sequence[str] = ()
    ) -> tuple[ScreenRecord, ...]:
        """Judge waveforms, each independently of the rest of the batch.

        Args:
            wavs: (B, N) or (N,) waveforms at the model's rate, full scale 1.
            wav_lens: (B,) relative lengths; None if no item is padded.
            ids: Names for the records; by default, their positions.

        Returns:
            One record per item; a too short, silent or clipped one has the verdict ``error``.

        Raises:
            InputError: If ``wavs`` is not a batch, see ``split_batch``.
        """
        items = split_batch(wavs, wav_lens)
        names = list(ids) or [str(place) for place in range(len(items))]
        if len(names) != len(items):
            raise InputError(
                f"got {len(names)} ids for {len(items)} waveforms; pass one id per waveform"
            )
        return tuple(self._judge(wav, name) for wav, name in zip(items, names, strict=True))

    def _judge(self, wav: Tensor, name: str) -> ScreenRecord:
        try:
            audio = audio_of(wav, self.settings, name=name)
        except AudioError as err:
            return self.screener.judge.judge(MeasuredFile(name, None, RETRY, error=error_of(err)))
        measured = self.screener.measurer.measure_item(audio)
        return self.screener.judge.judge(replace(measured, id=name))
