"""Enrol speakers and verify claims; enrolled embeddings are bound to the model that made them."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from nip_audio.audio.adapter import WaveformAdapter
from nip_audio.audio.io import Audio
from nip_audio.audio.manifest import Recording
from nip_audio.audio.windows import voice_of
from nip_audio.core.adapter import Batch
from nip_audio.core.finite import require_finite, require_finite_values
from nip_audio.core.near import suggest_names
from nip_audio.core.state import State, load_state, reading_state, save_state
from nip_audio.errors import AudioError, EnrolmentError, StateError
from nip_audio.models.plda import Plda
from nip_audio.models.pretrained import PretrainedModel

_log = logging.getLogger(__name__)

__all__ = [
    "Enrolment",
    "ScoreKind",
    "VerificationResult",
    "embed_audio",
    "embed_clips",
    "enrol",
    "require_embedding",
    "verify",
]

ScoreKind = Literal["cosine", "llr"]

_KIND = "enrolment"


@dataclass(frozen=True)
class Enrolment:
    """Embeddings of the enrolled speakers.

    Attributes:
        model_id: Hash of the model that made the embeddings.
        speakers: Names of the S speakers, sorted.
        embeddings: For each speaker, (recordings, D) embeddings of unit length. Cosine scoring
            averages them directly, PLDA after its own preparation, so one enrolment serves both.
        files: SHA-256 of the files of each speaker.
        failures: Errors of the files that were left out.
    """

    model_id: str
    speakers: tuple[str, ...]
    embeddings: tuple[Tensor, ...]
    files: dict[str, list[str]]
    failures: tuple[AudioError, ...] = field(default=())

    def __post_init__(self) -> None:
        """Refuse embeddings by which nothing can be decided.

        Raises:
            EnrolmentError: If a value is NaN or infinite.
        """
        named = dict(zip(self.speakers, self.embeddings, strict=False))
        require_finite_values(named, of="the enrolment", error=EnrolmentError)

    @property
    def voices(self) -> Tensor:
        """(S, D) mean of each speaker's embeddings."""
        return torch.stack([e.mean(dim=0) for e in self.embeddings])

    def voice(self, speaker: str) -> Tensor:
        """Return the mean of one speaker's embeddings, (D,).

        Raises:
            EnrolmentError: If the speaker is not enrolled; the message suggests similar names.
        """
        return self.embeddings_of(speaker).mean(dim=0)

    def embeddings_of(self, speaker: str) -> Tensor:
        """Return one speaker's embeddings, (recordings, D).

        Raises:
            EnrolmentError: If the speaker is not enrolled; the message suggests similar names.
        """
        if speaker not in self.speakers:
            raise EnrolmentError(
                f"speaker {speaker!r} is not enrolled; {suggest_names(speaker, self.speakers)}"
            )
        return self.embeddings[self.speakers.index(speaker)]

    def save(self, path: Path, *, force: bool = False) -> None:
        """Write the enrolment to a file, whole or not at all.

        Args:
            path: File to write.
            force: Overwrite an existing file.

        Raises:
            OutputError: If the file exists and ``force`` is false, or it cannot be written.
        """
        meta = {"speakers": list(self.speakers), "files": self.files}
        tensors = {"embeddings": torch.cat(self.embeddings)}
        save_state(path, State(_KIND, self.model_id, tensors, meta), force=force)

    @staticmethod
    def load(path: Path, *, model_id: str) -> Enrolment:
        """Read an enrolment.

        Args:
            path: File that ``save`` wrote.
            model_id: Hash of the model to use it with.

        Raises:
            StateError: If the file is not an enrolment made by this model, or is too old.
            HashMismatchError: If the file was changed after it was written.
        """
        state = load_state(path, kind=_KIND, model_id=model_id)
        if "embeddings" not in state.tensors:
            raise StateError(
                f"{path} was made by an earlier version and has one mean embedding per speaker "
                "only; "
                "enrol again"
            )
        with reading_state(path):
            speakers, files = tuple(state.meta["speakers"]), state.meta["files"]
            embeddings = torch.split(state.tensors["embeddings"], [len(files[s]) for s in speakers])
            return Enrolment(model_id, speakers, embeddings, files)


@torch.no_grad()
def embed_clips(pretrained: PretrainedModel, clips: Sequence[Tensor]) -> Tensor:
    """Embed recordings, those of equal length at once; returns (n, D) of unit length.

    Where there is much silence, it is left out (``audio.windows.voice_of``). A row is not finite or
    zero if the model's output is.
    """
    voices = [voice_of(clip, pretrained.card.sample_rate_hz) for clip in clips]
    alike: dict[int, list[int]] = defaultdict(list)
    for place, voice in enumerate(voices):
        alike[len(voice)].append(place)
    rows: dict[int, Tensor] = {}
    for places in alike.values():
        found = pretrained.model.embed(Batch(torch.stack([voices[k] for k in places])))
        rows.update(zip(places, torch.nn.functional.normalize(found, dim=1), strict=True))
    return torch.stack([rows[place] for place in range(len(voices))])


def embed_audio(pretrained: PretrainedModel, samples: Tensor) -> Tensor:
    """Embed one recording; (N,) samples give a (D,) embedding of unit length; see ``embed_clips``.

    Raises:
        AudioError: With code ``not_finite``, if the embedding is zero or not finite.
    """
    embedding = embed_clips(pretrained, [samples])[0]
    require_embedding(embedding)
    return embedding


def require_embedding(embedding: Tensor, of: object = "a recording") -> None:
    """Refuse an embedding by which nothing can be decided.

    Raises:
        AudioError: With code ``not_finite``, if it is zero, NaN or infinite.
    """
    if not bool(embedding.isfinite().all()) or not bool(embedding.any()):
        raise AudioError(
            of,
            code="not_finite",
            found="the model's embedding of it is zero, NaN or infinite",
            remedy="leave it out; if this happens with many files, train the model again",
        )


def enrol(
    pretrained: PretrainedModel,
    recordings: Iterable[Recording],
    adapter: WaveformAdapter,
    *,
    progress: Callable[[Recording], None] = lambda recording: None,
) -> Enrolment:
    """Enrol every speaker who has at least one usable recording.

    Args:
        pretrained: Model that embeds the recordings.
        recordings: Recordings, each with a speaker.
        adapter: Adapter that sets how files are read.
        progress: Function that is called after each recording.

    Returns:
        The enrolment; files that cannot be used are listed in its ``failures``.

    Raises:
        EnrolmentError: If a recording has no speaker, or no speaker has a usable recording.
    """
    embeddings: dict[str, list[Tensor]] = defaultdict(list)
    files: dict[str, list[str]] = defaultdict(list)
    failures: list[AudioError] = []
    for recording in recordings:
        if recording.speaker is None:
            raise EnrolmentError(
                f"{recording.path} is not in a speaker's folder; put each speaker's recordings "
                "into "
                "a separate folder"
            )
        try:
            audio = recording.read(adapter.settings)
            if audio.channels:
                _log.warning(
                    "%s: %s; choose one (--channel, or channel)", recording.id, audio.changes[0]
                )
            embeddings[recording.speaker].append(embed_audio(pretrained, audio.samples))
            files[recording.speaker].append(audio.sha256)
        except AudioError as err:
            failures.append(err)
        progress(recording)
    if not embeddings:
        raise EnrolmentError(
            "no recording could be enrolled"
            + (
                f"; the first error is: {failures[0]}"
                if failures
                else "; the folder has no audio files, add some"
            )
        )
    speakers = tuple(sorted(embeddings))
    return Enrolment(
        pretrained.model_id,
        speakers,
        tuple(torch.stack(embeddings[s]) for s in speakers),
        {s: files[s] for s in speakers},
        tuple(failures),
    )


@dataclass(frozen=True)
class VerificationResult:
    """Outcome of one trial.

    Attributes:
        score: Cosine, or log-likelihood ratio (``llr``) of PLDA.
        threshold: Score from which the claim is accepted.
        kind: Kind of score, ``cosine`` or ``llr``.
        calibrated_llr: Natural log-likelihood ratio of the score, as a threshold file calibrates
            it; None without one.
        probability: Probability that the claim is true, from this ratio and a prior; None without.
    """

    score: float
    threshold: float
    kind: ScoreKind = "cosine"
    calibrated_llr: float | None = None
    probability: float | None = None

    def __post_init__(self) -> None:
        """Refuse numbers by which nothing can be decided.

        Raises:
            InputError: If the score or the threshold is NaN or infinite.
        """
        require_finite(score=self.score, threshold=self.threshold)

    @property
    def accepted(self) -> bool:
        """Whether the claim is accepted."""
        return self.score >= self.threshold

    def to_json(self) -> dict[str, float | bool | None]:
        """Return rounded JSON values; the score is named after its kind."""
        found: dict[str, float | bool | None] = {
            self.kind: round(self.score, 6),
            "threshold": round(self.threshold, 6),
            "accepted": self.accepted,
        }
        if self.calibrated_llr is not None:
            known = self.probability
            found["calibrated_llr"] = round(self.calibrated_llr, 6)
            found["probability"] = None if known is None else float(f"{known:.6g}")
        return found


def verify(
    pretrained: PretrainedModel,
    audio: Audio,
    enrolment: Enrolment,
    speaker: str,
    *,
    threshold: float,
    plda: Plda | None = None,
) -> VerificationResult:
    """Verify that a recording is of the claimed speaker, by cosine or PLDA score.

    Args:
        pretrained: Model that embeds the recording.
        audio: Recording to verify.
        enrolment: Enrolment made by the same model.
        speaker: Claimed speaker, who must be enrolled.
        threshold: Score from which the claim is accepted.
        plda: PLDA back end for the same model; None scores by cosine.

    Raises:
        EnrolmentError: If the speaker is not enrolled.
    """
    embedding = embed_audio(pretrained, audio.samples)
    if plda is not None:
        ratio = float(plda.score(embedding[None], [enrolment.embeddings_of(speaker)]))
        return VerificationResult(ratio, threshold, "llr")
    voice = torch.nn.functional.normalize(enrolment.voice(speaker), dim=0)
    return VerificationResult(float(embedding @ voice), threshold)
