"""Fit a PLDA (probabilistic linear discriminant analysis) back end to recordings."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from nip_audio.audio.adapter import WaveformAdapter
from nip_audio.audio.crops import cut
from nip_audio.audio.manifest import Recording
from nip_audio.errors import AudioError, InputError
from nip_audio.models.enrolment import embed_audio
from nip_audio.models.plda import Plda
from nip_audio.models.plda_training import fit_plda
from nip_audio.models.pretrained import PretrainedModel

__all__ = ["fit_plda_to_recordings"]


def fit_plda_to_recordings(
    pretrained: PretrainedModel,
    recordings: Iterable[Recording],
    adapter: WaveformAdapter,
    *,
    lda_dim: int | None = None,
    rank: int | None = None,
    iterations: int = 10,
    crop_s: float | None = None,
    calibration: Iterable[Recording] = (),
    progress: Callable[[Recording], None] = lambda recording: None,
) -> Plda:
    """Fit PLDA to recordings; unusable files are left out and listed in ``Plda.failures``.

    Args:
        pretrained: Model that embeds the recordings.
        recordings: Recordings to fit on, each with a speaker.
        adapter: Adapter that sets how files are read.
        lda_dim: Dimensions that LDA keeps, from 2 to speakers − 1; None means no LDA.
        rank: Number of directions in which speakers differ; None means as many as possible.
        iterations: Iterations of expectation maximisation.
        crop_s: Length in seconds of the clips that recordings are cut into, so that one long
            recording gives several embeddings; None embeds whole recordings. Recordings shorter
            than one clip are left out.
        calibration: Other recordings, whose pairs set the threshold. They are embedded whole, as
            recordings are when they are verified.
        progress: Function that is called after each recording.

    Raises:
        InputError: If a recording has no speaker, or there are too few recordings.
    """
    found = _Embedded(pretrained, adapter)
    found.add(recordings, crop_s, progress)
    if not found.rows:
        raise InputError(
            "no recording could be embedded"
            + (f"; the first error is: {found.failures[0]}" if found.failures else "; pass some")
        )
    plda = fit_plda(
        torch.stack(found.rows),
        found.speakers,
        model_id=pretrained.model_id,
        lda_dim=lda_dim,
        rank=rank,
        iterations=iterations,
    )
    trials = list(calibration)
    if trials:
        fitted = len(found.rows)
        found.add(trials, None, progress)
        plda = plda.calibrate(torch.stack(found.rows)[fitted:], found.speakers[fitted:])
    return replace(plda, provenance=tuple(sorted(found.contents)), failures=tuple(found.failures))


@dataclass
class _Embedded:
    """Embeddings so far; a copy of a recording is refused, since it would show no variation."""

    pretrained: PretrainedModel
    adapter: WaveformAdapter
    rows: list[Tensor] = field(default_factory=list)
    speakers: list[str] = field(default_factory=list)
    contents: set[str] = field(default_factory=set)
    failures: list[AudioError] = field(default_factory=list)

    def add(
        self,
        recordings: Iterable[Recording],
        crop_s: float | None,
        progress: Callable[[Recording], None],
    ) -> None:
        for recording in recordings:
            if recording.speaker is None:
                raise InputError(
                    f"{recording.path} is not in a speaker's folder; put each speaker's recordings "
                    "into a separate folder"
                )
            try:
                rows = self._embed(recording, crop_s)
            except AudioError as err:
                self.failures.append(err)
            else:
                self.rows += rows
                self.speakers += [recording.speaker] * len(rows)
            progress(recording)

    def _embed(self, recording: Recording, crop_s: float | None) -> list[Tensor]:
        audio = recording.read(self.adapter.settings)
        crops = cut(audio, crop_s)
        if not crops:
            raise AudioError(
                recording.path,
                code="too_short",
                found=f"it lasts {audio.duration_s:.2f} s, less than one clip of {crop_s:g} s",
                remedy="use a longer recording, or shorter clips with `crop_s`",
            )
        if audio.content_sha256 in self.contents:
            raise AudioError(
                recording.path,
                code="duplicate",
                found="the same audio was already used",
                remedy="use different recordings, also for calibration",
            )
        self.contents.add(audio.content_sha256)
        return [embed_audio(self.pretrained, crop) for crop in crops]
