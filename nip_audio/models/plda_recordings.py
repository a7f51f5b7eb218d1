"""Fit a PLDA back end to recordings."""

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
    """Fit to recordings; bad files, and those shorter than a crop, are left out and listed.

    Args:
        pretrained: Model.
        recordings: With speakers.
        adapter: How files are read.
        lda_dim: See ``fit_plda``.
        rank: See ``fit_plda``.
        iterations: See ``fit_plda``.
        crop_s: Cut recordings into crops of this many seconds, so that a speaker's one long
            recording gives several embeddings; None embeds whole recordings.
        calibration: Other recordings, for the threshold. They are embedded whole, since that is
            how recordings are verified; all their pairs are trials.
        progress: Called after each recording.

    Raises:
        InputError: If a recording has no speaker, or there are too few for what is asked.
    """
    found = _Embedded(pretrained, adapter)
    found.add(recordings, crop_s, progress)
    if not found.rows:
        raise InputError(
            "no recording could be embedded"
            + (f"; the first failed so: {found.failures[0]}" if found.failures else "; give some")
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
    """Embeddings so far. A recording counts once: as a copy it would seem to vary by nothing."""

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
                    f"{recording.path} lies in no speaker's folder; put each speaker's recordings "
                    "into a folder of their own"
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
                found=f"it lasts {audio.duration_s:.2f} s, less than one crop of {crop_s:g} s",
                remedy="give a longer recording, or shorter crops by --crop-s",
            )
        if audio.content_sha256 in self.contents:
            raise AudioError(
                recording.path,
                code="duplicate",
                found="the same audio has been used already",
                remedy="give other recordings, and others again to calibrate on",
            )
        self.contents.add(audio.content_sha256)
        return [embed_audio(self.pretrained, crop) for crop in crops]
